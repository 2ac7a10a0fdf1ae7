/* moments: the mean of every channel, and the sum of the squares of what differs from it, where the channels lie last.

   A part takes its n values less about their mean, that of s of them, so that each is read once. As these are among the
   n, their distance from the mean is in the result as well, and rounding is 1 + n / s times as much at worst. What all
   parts have found is put together as the variance of several samples is (Chan, Golub and LeVeque 1979), in float64. A
   part may be what another kernel has just computed. */

/* found: for each part what it took away, the sum of what was left, and that of its squares, by channel; counts: how many
   values of each channel a part has. */
#define FIELDS_moments(A, W, L, C, I, F) A(x) A(found) W(counts) I(channels) I(length) I(parts)
DECLARE(moments)

enum { SUM_VECTORS = 4, MOST_SUMS = 1 << 10, SAMPLED = 16, FOUND = 3 };

/* How many elements are summed side by side: several pixels where they have few channels, in whole vectors if it can be. */
INLINE int64_t moments_width(int64_t channels) {
    int64_t pixels = 1;
    while (channels * pixels % LANES) pixels *= 2;
    if (channels * pixels > MOST_SUMS) return channels;
    return ceil_div(SUM_VECTORS * LANES, channels * pixels) * channels * pixels;
}

static Demand moments_demand(const void *args) {
    const moments_args *m = args;
    return (Demand){m->parts, FOUND * whole_vectors(moments_width(m->channels))};
}

/* The mean of some of the pixels, for each channel. */
static void sample_mean(const float *x, int64_t channels, int64_t pixels, float *mean) {
    const int64_t sampled = smaller(pixels, SAMPLED);
    clear_floats(mean, channels);
    for (int64_t n = 0; n < sampled; n++) {
        const float *pixel = x + pixels * n / sampled * channels;
        EACH_VECTOR(channels, { store_some(mean + i, load_some(mean + i, some) + load_some(pixel + i, some), some); })
    }
    for (int64_t c = 0; c < channels; c++) mean[c] /= (float)sampled;
}

/* Sums over rows, of v vectors side by side; the last has `some` elements. */
INLINE void sum_rows(const float *x, int64_t width, int64_t rows, const float *about, float *sums, float *squares,
                     const int v, int64_t some) {
    vec start[SUM_VECTORS], sum[SUM_VECTORS] = {{0}}, square[SUM_VECTORS] = {{0}};
    UNROLL for (int j = 0; j < v; j++) start[j] = load_some(about + j * LANES, j == v - 1 ? some : LANES);
    for (int64_t row = 0; row < rows; row++, x += width)
        UNROLL for (int j = 0; j < v; j++) {
            const vec rest = load_some(x + j * LANES, j == v - 1 ? some : LANES) - start[j];
            sum[j] += rest;
            square[j] += rest * rest;
        }
    UNROLL for (int j = 0; j < v; j++) {
        store_some(sums + j * LANES, sum[j], j == v - 1 ? some : LANES);
        store_some(squares + j * LANES, square[j], j == v - 1 ? some : LANES);
    }
}

static void moments_over(const void *args, int64_t part, Range range, float *work) {
    const moments_args *m = args;
    const int64_t channels = m->channels, width = moments_width(channels), rows = range.count / width;
    const float *x = m->x + range.first;
    float *about = work, *sums = about + whole_vectors(width), *squares = sums + whole_vectors(width);
    m->counts[part] = (int32_t)(range.count / channels);
    if (!range.count) return;
    sample_mean(x, channels, range.count / channels, about);
    for (int64_t i = channels; i < width; i++) about[i] = about[i - channels];
    for (int64_t i = 0; i < width;) {
        const int64_t left = width - i;
        if (left >= SUM_VECTORS * LANES)
            sum_rows(x + i, width, rows, about + i, sums + i, squares + i, SUM_VECTORS, LANES), i += SUM_VECTORS * LANES;
        else
            sum_rows(x + i, width, rows, about + i, sums + i, squares + i, 1, smaller(left, LANES)), i += LANES;
    }
    EACH_VECTOR(range.count - rows * width, {
        const vec rest = load_some(x + rows * width + i, some) - load_some(about + i, some);
        store_some(sums + i, load_some(sums + i, some) + rest, some);
        store_some(squares + i, load_some(squares + i, some) + rest * rest, some);
    })
    float *found = m->found + part * FOUND * channels;
    for (int64_t c = 0; c < channels; c++) {
        float sum = 0, square = 0;
        for (int64_t i = c; i < width; i += channels) sum += sums[i], square += squares[i];
        found[c] = about[c], found[channels + c] = sum, found[2 * channels + c] = square;
    }
}

/* Some whole pixels. */
static void moments_run(const void *args, int64_t part, float *work) {
    const moments_args *m = args;
    const int64_t pixels = m->length / m->channels, first = pixels * part / m->parts;
    const int64_t count = pixels * (part + 1) / m->parts - first;
    moments_over(args, part, (Range){first * m->channels, count * m->channels}, work);
}

/* moments_together: mean and spread of all parts. */
#define FIELDS_moments_together(A, W, L, C, I, F) A(found) W(counts) A(mean) A(spread) I(channels) I(parts)
DECLARE(moments_together)

enum { TOGETHER = 16 /* channels in a part */ };

static Demand moments_together_demand(const void *args) {
    const moments_together_args *m = args;
    return (Demand){ceil_div(m->channels, TOGETHER), 0};
}

static void moments_together_run(const void *args, int64_t part, float *work) {
    const moments_together_args *m = args;
    const int64_t channels = m->channels, start = part * TOGETHER, width = smaller(TOGETHER, channels - start);
    double mean[TOGETHER] = {0}, spread[TOGETHER] = {0};
    int64_t count = 0;
    for (int64_t p = 0; p < m->parts; p++) {
        const float *about = m->found + p * FOUND * channels + start, *sum = about + channels;
        const double n = m->counts[p];
        count += m->counts[p];
        for (int64_t c = 0; c < width; c++) mean[c] += n * about[c] + sum[c];
    }
    for (int64_t c = 0; c < width; c++) mean[c] /= (double)count;
    for (int64_t p = 0; p < m->parts; p++) {
        const float *about = m->found + p * FOUND * channels + start, *sum = about + channels, *square = sum + channels;
        const double n = m->counts[p];
        for (int64_t c = 0; n > 0 && c < width; c++) {
            const double own = sum[c] / n, inside = square[c] - sum[c] * own, apart = about[c] + own - mean[c];
            spread[c] += (inside > 0 ? inside : 0) + n * apart * apart;
        }
    }
    for (int64_t c = 0; c < width; c++) m->mean[start + c] = (float)mean[c], m->spread[start + c] = (float)spread[c];
}
