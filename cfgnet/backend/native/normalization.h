/* normalize, and its gradient: normal = (x - mean) / (std + outer_eps) row by row, times a weight, plus a bias.

   x is (samples, groups, channels, positions), and a row is a group of a sample. Either that is the order in memory, so
   that a row is one piece; or the channels lie `last`, (samples, positions, groups, channels), and all rows of a sample
   are worked on side by side, by vectors of channels.

   The mean is that of x less the first element of its row, and the two stay apart: of a row that lies far from zero no
   digits are lost. The variance is that of what is left when the mean is known, not a difference of large sums.

   centre and std: by row. Without centre nothing is subtracted, without std nothing divided. weight and bias: by channel,
   or NULL. dweight and dbias: totals by channel for each part, or NULL. */
#define FIELDS_normalize(A, W, L, C, I, F)                                                                     \
    A(x) A(y) A(centre) A(std) A(weight) A(bias) A(dy) A(dx) A(dweight) A(dbias)                               \
    I(samples) I(groups) I(channels) I(positions) I(last) I(parts) F(eps) F(outer_eps)
DECLARE(normalize)

enum { ROW_CHUNK = 1 << 12, ROW_SUMS = 4, PIXEL_ARRAYS = 5 };

/* Of a row, and of a pixel with all its channels. */
INLINE int64_t row_size(const normalize_args *p) { return p->channels * p->positions; }
INLINE int64_t pixel_size(const normalize_args *p) { return p->groups * p->channels; }

static Demand normalize_demand(const void *args) {
    const normalize_args *p = args;
    return (Demand){p->parts, p->last ? PIXEL_ARRAYS * whole_vectors(pixel_size(p)) : 0};
}

/* A part is some of the rows, or of the samples whose channels lie last. */
INLINE Range normalize_items(const normalize_args *p, int64_t part) {
    const int64_t all = p->last ? p->samples : p->samples * p->groups, first = all * part / p->parts;
    return (Range){first, all * (part + 1) / p->parts - first};
}

static Range normalize_covers(const void *args, int64_t part) {
    const normalize_args *p = args;
    const Range items = normalize_items(p, part);
    const int64_t size = row_size(p) * (p->last ? p->groups : 1);
    return (Range){items.first * size, items.count * size};
}

/* What makes normal of x, and a gradient by x of one by normal: one number of each for a piece of a row, or, with `each`,
   one for each element of a pixel. */
typedef struct {
    const float *first, *centre, *inverse, *mean, *slope;
} Norm;

INLINE vec value_at(const float *values, int64_t i, int64_t some, int each) {
    return each ? load_some(values + i, some) : splat(*values);
}

INLINE vec normal_at(Norm n, const float *x, int64_t i, int64_t some, int each) {
    const vec rest = load_some(x + i, some) - value_at(n.first, i, some, each);
    return (rest - value_at(n.centre, i, some, each)) * value_at(n.inverse, i, some, each);
}

static float inverse_of(const normalize_args *p, int64_t row) {
    return p->std ? 1 / (p->std[row] + (float)p->outer_eps) : 1;
}

static float root_of(const normalize_args *p, float variance) { return __builtin_sqrtf(variance + (float)p->eps); }

/* By how much larger the divisor is than the standard deviation. Where that is 0, so is normal, and it does not matter. */
static float steepness_of(const normalize_args *p, int64_t row) {
    const float std = p->std ? p->std[row] : 0;
    return std > 0 ? (std + (float)p->outer_eps) / std : 0;
}

/* The results for a piece of a row, or for a pixel. There is one weight and one bias, or with `own` one for each element. */
INLINE void normalize_piece(Norm n, const float *x, float *y, int64_t size, const float *weight, const float *bias,
                            int own, int each) {
    EACH_VECTOR(size, {
        vec value = normal_at(n, x, i, some, each);
        if (weight) value *= value_at(weight, i, some, own);
        if (bias) value += value_at(bias, i, some, own);
        store_some(y + i, value, some);
    })
}

INLINE void normalize_dx_piece(Norm n, const float *x, const float *dy, float *dx, int64_t size, const float *weight,
                               int own, int each) {
    EACH_VECTOR(size, {
        const vec along = normal_at(n, x, i, some, each) * value_at(n.slope, i, some, each);
        vec upper = load_some(dy + i, some);
        if (weight) upper *= value_at(weight, i, some, own);
        upper = (upper - value_at(n.mean, i, some, each)) - along;
        store_some(dx + i, upper * value_at(n.inverse, i, some, each), some);
    })
}

/* Rows that lie in one piece. With one position, each element has a weight of its own; otherwise a row is a piece for each
   channel, with as many elements as there are positions. */

INLINE vec power_of(vec x, int squared) {
    if (squared) return x * x;
    return x;
}

/* The mean over a row of x less its first element; or, when the centre is known, of the squares of what is left. */
INLINE float mean_of_row(const float *x, int64_t size, float first, float centre, int squared) {
    double total = 0;
    for (int64_t start = 0; start < size; start += ROW_CHUNK) {
        const int64_t stop = smaller(start + ROW_CHUNK, size);
        vec sums[ROW_SUMS] = {{0}};
        int64_t i = start;
        for (; i + ROW_SUMS * LANES <= stop; i += ROW_SUMS * LANES)
            UNROLL for (int j = 0; j < ROW_SUMS; j++)
                sums[j] += power_of((load(x + i + j * LANES) - first) - centre, squared);
        for (; i < stop; i += LANES) {
            const int64_t some = smaller(LANES, stop - i);
            sums[0] += power_of(padded((load_some(x + i, some) - first) - centre, some, 0), squared);
        }
        total += sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
    return (float)(total / (double)size);
}

INLINE void normalize_row(const normalize_args *p, int64_t row, int own) {
    const int64_t size = row_size(p), piece = own ? size : p->positions, channel = row % p->groups * p->channels;
    const float *x = p->x + row * size;
    float first = 0, centre = 0, inverse = 1;
    if (p->centre) first = x[0], centre = p->centre[row] = mean_of_row(x, size, first, 0, 0);
    if (p->std) p->std[row] = root_of(p, mean_of_row(x, size, first, centre, 1)), inverse = inverse_of(p, row);
    const Norm n = {&first, &centre, &inverse, NULL, NULL};
    for (int64_t at = 0, c = channel; at < size; at += piece, c++)
        normalize_piece(n, x + at, p->y + row * size + at, piece, FURTHER(p->weight, c), FURTHER(p->bias, c), own, 0);
}

/* Adds a piece to the sums over its row of dy * weight and of dy * weight * normal, and to the totals of its channels. */
INLINE void sum_piece(Norm n, const float *x, const float *dy, int64_t size, const float *weight, float *dweight,
                      float *dbias, int own, float *sum, float *sum_along) {
    vec all = splat(0), all_along = splat(0);
    EACH_VECTOR(size, {
        vec upper = load_some(dy + i, some);
        const vec normal = normal_at(n, x, i, some, 0);
        if (own && dweight) store_some(dweight + i, load_some(dweight + i, some) + upper * normal, some);
        if (own && dbias) store_some(dbias + i, load_some(dbias + i, some) + upper, some);
        if (own && weight) upper *= load_some(weight + i, some);
        all += upper;
        all_along += upper * normal;
    })
    const float one = sum_of_lanes(all), along = sum_of_lanes(all_along), factor = weight && !own ? *weight : 1;
    if (!own && dweight) *dweight += along;
    if (!own && dbias) *dbias += one;
    *sum += factor * one;
    *sum_along += factor * along;
}

INLINE void normalize_dx_row(const normalize_args *p, int64_t row, float *dweight, float *dbias, int own) {
    const int64_t size = row_size(p), piece = own ? size : p->positions, channel = row % p->groups * p->channels;
    const float *x = p->x + row * size, *dy = p->dy + row * size;
    const float first = p->centre ? x[0] : 0, centre = p->centre ? p->centre[row] : 0, inverse = inverse_of(p, row);
    float mean = 0, slope = 0;
    const Norm n = {&first, &centre, &inverse, &mean, &slope};
    for (int64_t at = 0, c = channel; at < size; at += piece, c++)
        sum_piece(n, x + at, dy + at, piece, FURTHER(p->weight, c), FURTHER(dweight, c), FURTHER(dbias, c), own, &mean,
                  &slope);
    if (!p->dx) return;
    mean = p->centre ? mean / (float)size : 0;
    slope *= steepness_of(p, row) / (float)size;
    for (int64_t at = 0, c = channel; at < size; at += piece, c++)
        normalize_dx_piece(n, x + at, dy + at, p->dx + row * size + at, piece, FURTHER(p->weight, c), own, 0);
}

/* Samples whose channels lie last. What belongs to a row is there once for each of its channels. */

static void spread(const normalize_args *p, int64_t group, float value, float *to) {
    for (int64_t c = 0; c < p->channels; c++) to[group * p->channels + c] = value;
}

/* The first element and the centre of each row. */
static void spread_centres(const normalize_args *p, int64_t sample, float *first, float *centre) {
    const float *x = p->x + sample * p->groups * row_size(p);
    for (int64_t g = 0; g < p->groups; g++) {
        spread(p, g, p->centre ? x[g * p->channels] : 0, first);
        spread(p, g, p->centre ? p->centre[sample * p->groups + g] : 0, centre);
    }
}

static void spread_inverses(const normalize_args *p, int64_t sample, float *inverse) {
    for (int64_t g = 0; g < p->groups; g++) spread(p, g, inverse_of(p, sample * p->groups + g), inverse);
}

/* As in mean_of_row, but the sum over the pixels, by channel. */
INLINE void sum_pixels(const normalize_args *p, const float *x, const float *first, const float *centre, int squared,
                       float *sums) {
    const int64_t width = pixel_size(p);
    clear_floats(sums, width);
    for (int64_t pixel = 0; pixel < p->positions; pixel++, x += width)
        EACH_VECTOR(width, {
            const vec rest = (load_some(x + i, some) - load_some(first + i, some)) - load_some(centre + i, some);
            store_some(sums + i, load_some(sums + i, some) + power_of(rest, squared), some);
        })
}

/* The mean over a group of what was summed over the pixels. */
static float mean_of_group(const normalize_args *p, int64_t group, const float *sums, const float *weight) {
    double total = 0;
    for (int64_t c = group * p->channels; c < (group + 1) * p->channels; c++)
        total += (double)sums[c] * (weight ? weight[c] : 1);
    return (float)(total / (double)row_size(p));
}

static void normalize_pixels(const normalize_args *p, int64_t sample, float *work) {
    const int64_t width = pixel_size(p), step = whole_vectors(width), from = sample * p->positions * width;
    const float *x = p->x + from;
    float *first = work, *centre = first + step, *inverse = centre + step, *sums = inverse + step;
    float *centres = FURTHER(p->centre, sample * p->groups), *stds = FURTHER(p->std, sample * p->groups);
    for (int64_t g = 0; centres && g < p->groups; g++) centres[g] = 0;
    spread_centres(p, sample, first, centre);
    if (centres) {
        sum_pixels(p, x, first, centre, 0, sums);
        for (int64_t g = 0; g < p->groups; g++) centres[g] = mean_of_group(p, g, sums, NULL);
        spread_centres(p, sample, first, centre);
    }
    if (stds) {
        sum_pixels(p, x, first, centre, 1, sums);
        for (int64_t g = 0; g < p->groups; g++) stds[g] = root_of(p, mean_of_group(p, g, sums, NULL));
    }
    spread_inverses(p, sample, inverse);
    const Norm n = {first, centre, inverse, NULL, NULL};
    for (int64_t at = 0; at < p->positions * width; at += width)
        normalize_piece(n, x + at, p->y + from + at, width, p->weight, p->bias, 1, 1);
}

static void normalize_dx_pixels(const normalize_args *p, int64_t sample, float *dweight, float *dbias, float *work) {
    const int64_t width = pixel_size(p), step = whole_vectors(width), from = sample * p->positions * width;
    const float *x = p->x + from, *dy = p->dy + from;
    float *first = work, *centre = first + step, *inverse = centre + step, *mean = inverse + step, *slope = mean + step;
    const Norm n = {first, centre, inverse, mean, slope};
    spread_centres(p, sample, first, centre);
    spread_inverses(p, sample, inverse);
    clear_floats(mean, width);
    clear_floats(slope, width);
    for (int64_t at = 0; at < p->positions * width; at += width)
        EACH_VECTOR(width, {
            const vec upper = load_some(dy + at + i, some);
            store_some(mean + i, load_some(mean + i, some) + upper, some);
            store_some(slope + i, load_some(slope + i, some) + upper * normal_at(n, x + at, i, some, 1), some);
        })
    for (int64_t c = 0; c < width; c++) {
        if (dweight) dweight[c] += slope[c];
        if (dbias) dbias[c] += mean[c];
    }
    if (!p->dx) return;
    for (int64_t g = 0; g < p->groups; g++) {
        spread(p, g, p->centre ? mean_of_group(p, g, mean, p->weight) : 0, mean);
        spread(p, g, mean_of_group(p, g, slope, p->weight) * steepness_of(p, sample * p->groups + g), slope);
    }
    for (int64_t at = 0; at < p->positions * width; at += width)
        normalize_dx_piece(n, x + at, dy + at, p->dx + from + at, width, p->weight, 1, 1);
}

static void normalize_run(const void *args, int64_t part, float *work) {
    const normalize_args *p = args;
    const Range items = normalize_items(p, part);
    for (int64_t i = items.first; i < items.first + items.count; i++)
        if (p->last)
            normalize_pixels(p, i, work);
        else if (p->positions == 1)
            normalize_row(p, i, 1);
        else
            normalize_row(p, i, 0);
}

static void normalize_dx_run(const void *args, int64_t part, float *work) {
    const normalize_args *p = args;
    const Range items = normalize_items(p, part);
    const int64_t width = pixel_size(p);
    float *dweight = FURTHER(p->dweight, part * width), *dbias = FURTHER(p->dbias, part * width);
    if (dweight) clear_floats(dweight, width);
    if (dbias) clear_floats(dbias, width);
    for (int64_t i = items.first; i < items.first + items.count; i++)
        if (p->last)
            normalize_dx_pixels(p, i, dweight, dbias, work);
        else if (p->positions == 1)
            normalize_dx_row(p, i, dweight, dbias, 1);
        else
            normalize_dx_row(p, i, dweight, dbias, 0);
}
