/* The tiles of Winograd's convolution (Winograd 1980; Lavin and Gray 2016), for kernels of 3x3 and of 5x5 with stride 1:
   forward, the gradient of the input, and that of the weight.

   A tile of the input, 6x6 pixels, and a kernel of r x r are polynomials, which are evaluated at the points 0, 1, -1, 2,
   -2 and infinity in both directions. There a convolution is 36 products, so that a tile gives (7 - r) x (7 - r) pixels
   of the output. For each of the 36 places, the sum over channels is a product of matrices, (tiles, inputs) by (inputs,
   outputs). With M as the tile of the output, and g as the kernel,

     M = A' [(G g G') * (B' x B)] A,    dg = G' [(B' x B) * (A dM A')] G    and    dx = B [(G g G') * (A dM A')] B',

   where A and G are the same evaluation, of 7 - r and of r values, apart from the factors that G carries.

   A part is some rows of tiles, few enough that what is in between stays in a core's cache. Each of the 36 planes ends
   with a vector that nobody reads, so that their beginnings do not all fall on the same lines of the fastest cache. */

enum { EDGE = 6, PLANES = EDGE * EDGE };
/* The floats in between, of a part; and those of a weight that does not stay in the cache. Of the cache, a part leaves room
   for the weight, for what it reads and writes, and for what goes on with its result. */
enum { WINOGRAD_PART = 1 << 16, LARGE_WEIGHT = 1 << 18 };
/* The fewest tiles of a part; more where a weight does not stay in the cache, and is read again for each part. */
enum { LEAST_TILES = 24, MORE_TILES = 64 };

/* What evaluation at a point is divided by, in G. */
static const float SCALES[EDGE] = {1.0f / 4, -1.0f / 6, -1.0f / 6, 1.0f / 24, 1.0f / 24, 1};

/* B' x: six values to six. */
INLINE void winograd_input(const vec *x, int step, vec *to) {
    vec a = x[4 * step] - 4.0f * x[2 * step], b = x[3 * step] - 4.0f * x[step];
    vec c = x[4 * step] - x[2 * step], d = 2.0f * (x[3 * step] - x[step]);
    to[0] = 4.0f * x[0] - 5.0f * x[2 * step] + x[4 * step];
    to[step] = a + b;
    to[2 * step] = a - b;
    to[3 * step] = c + d;
    to[4 * step] = c - d;
    to[5 * step] = 4.0f * x[step] - 5.0f * x[3 * step] + x[5 * step];
}

/* The transpose of that, B x. */
INLINE void winograd_input_back(const vec *x, int step, vec *to) {
    vec sum = x[step] + x[2 * step], difference = x[step] - x[2 * step];
    vec sum2 = x[3 * step] + x[4 * step], difference2 = 2.0f * (x[3 * step] - x[4 * step]);
    vec first = x[0], last = x[5 * step];
    to[0] = 4.0f * first;
    to[step] = 4.0f * (last - difference) - difference2;
    to[2 * step] = -5.0f * first - 4.0f * sum - sum2;
    to[3 * step] = difference + difference2 - 5.0f * last;
    to[4 * step] = first + sum + sum2;
    to[5 * step] = last;
}

/* The polynomial with the coefficients x[0] to x[n - 1] at the six points. */
INLINE void evaluate(const vec *x, int step, const int n, vec *to) {
    vec even = x[0], odd = x[step], even2 = x[0], odd2 = 2.0f * x[step];
    if (n > 2) even += x[2 * step], even2 += 4.0f * x[2 * step];
    if (n > 3) odd += x[3 * step], odd2 += 8.0f * x[3 * step];
    if (n > 4) even += x[4 * step], even2 += 16.0f * x[4 * step];
    vec first = x[0], last = x[(n - 1) * step];
    to[0] = first;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = even2 + odd2;
    to[4 * step] = even2 - odd2;
    to[5 * step] = last;
}

/* The transpose of that: six values to n. */
INLINE void collect(const vec *x, int step, const int n, vec *to) {
    vec sum = x[step] + x[2 * step], difference = x[step] - x[2 * step];
    vec sum2 = x[3 * step] + x[4 * step], difference2 = x[3 * step] - x[4 * step], last = x[5 * step];
    to[0] = x[0] + sum + sum2;
    to[step] = difference + 2.0f * difference2;
    if (n > 2) to[2 * step] = sum + 4.0f * sum2;
    if (n > 3) to[3 * step] = difference + 8.0f * difference2;
    if (n > 4) to[4 * step] = sum + 16.0f * sum2;
    to[(n - 1) * step] += last;
}

/* Both directions of a tile that lies in rows of six: evaluate n x n values to 6x6, or collect 6x6 to n x n. */
INLINE void evaluate_tile(vec *x, const int n) {
    UNROLL for (int j = 0; j < n; j++) evaluate(x + j, EDGE, n, x + j);
    UNROLL for (int i = 0; i < EDGE; i++) evaluate(x + i * EDGE, 1, n, x + i * EDGE);
}

INLINE void collect_tile(vec *x, const int n) {
    UNROLL for (int j = 0; j < EDGE; j++) collect(x + j, EDGE, n, x + j);
    UNROLL for (int i = 0; i < n; i++) collect(x + i * EDGE, 1, n, x + i * EDGE);
}

/* Tiles: where those of an image lie, as rows over all samples. */

typedef struct {
    int64_t size, down, across; /* pixels of the output per tile and direction; tiles per image */
    int64_t rows;               /* rows of tiles per part */
} Tiling;

static Tiling tiling(int64_t kernel, int64_t height, int64_t width, int64_t samples, int64_t channels,
                     int64_t least) {
    Tiling t = {.size = EDGE + 1 - kernel};
    t.down = ceil_div(height, t.size);
    t.across = ceil_div(width, t.size);
    const int64_t fit = WINOGRAD_PART / (PLANES * channels * t.across), total = t.down * samples;
    const int64_t parts = ceil_div(total, larger(1, larger(fit, ceil_div(least, t.across))));
    t.rows = ceil_div(total, ceil_div(parts, EVEN) * EVEN);
    return t;
}

static int64_t plane_floats(const Tiling *t, int64_t channels) {
    return whole_vectors(t->rows * t->across * channels) + LANES;
}

/* Images (samples, height, width, channels), of which `depth` channels are wanted, from the one at `pixels` on. */
typedef struct {
    const float *pixels;
    int64_t height, width, channels, depth;
} Images;

/* The pixels of a square, `edge` in each direction from (y, x) of a sample on; zeros outside. */
INLINE void locate_pixels(const Images *m, int64_t sample, int64_t y, int64_t x, const int edge, const float *zeros,
                          const float **pixels) {
    const float *image = m->pixels + sample * m->height * m->width * m->channels;
    for (int i = 0; i < edge; i++)
        for (int j = 0; j < edge; j++) {
            int inside = (uint64_t)(y + i) < (uint64_t)m->height && (uint64_t)(x + j) < (uint64_t)m->width;
            pixels[i * edge + j] = inside ? image + ((y + i) * m->width + x + j) * m->channels : zeros;
        }
}

/* Asks for the pixels of a square before they are read, and for those of the next sample where it has fewer lines. */
INLINE void fetch_pixels(const Images *m, int64_t sample, int64_t y, int64_t x, const int edge) {
    const float *line = m->pixels + ((sample * m->height + y) * m->width + x) * m->channels;
    for (int i = 0; i < edge; i++, line += m->width * m->channels)
        for (int j = 0; j < edge; j++)
            for (int64_t c = 0; c < m->depth; c += LINE) __builtin_prefetch(line + j * m->channels + c, 0, 2);
}

/* B' x B of the rows of tiles `first` to `stop`: planes[p * plane + tile * channels + channel]. */
static void transform_input(const Images *x, const Tiling *t, int64_t offset_h, int64_t offset_w, int64_t first,
                            int64_t stop, const float *zeros, float *planes) {
    const int64_t channels = x->depth, plane = plane_floats(t, channels);
    const float *pixels[PLANES];
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += channels) {
            const int64_t y = row % t->down * t->size + offset_h;
            locate_pixels(x, row / t->down, y, column * t->size + offset_w, EDGE, zeros, pixels);
            if (row + 1 < stop) fetch_pixels(x, row / t->down, y + EDGE, column * t->size, (int)t->size);
            for (int64_t c = 0; c < channels; c += LANES) {
                const int64_t n = smaller(LANES, channels - c);
                vec tile[PLANES], line[EDGE];
                UNROLL for (int j = 0; j < EDGE; j++) {
                    UNROLL for (int i = 0; i < EDGE; i++) line[i] = load_some(pixels[i * EDGE + j] + c, n);
                    vec to[EDGE];
                    winograd_input(line, 1, to);
                    UNROLL for (int i = 0; i < EDGE; i++) tile[i * EDGE + j] = to[i];
                }
                UNROLL for (int i = 0; i < EDGE; i++) {
                    winograd_input(tile + i * EDGE, 1, line);
                    UNROLL for (int j = 0; j < EDGE; j++)
                        store_some(planes + (i * EDGE + j) * plane + c, line[j], n);
                }
            }
        }
}

/* A dM A' of the same tiles of an output, `size` x `size` pixels each. */
INLINE void transform_gradient(const Images *dy, const Tiling *t, const int size, int64_t first, int64_t stop,
                               const float *zeros, float *planes) {
    const int64_t channels = dy->depth, plane = plane_floats(t, channels);
    const float *pixels[PLANES];
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += channels) {
            locate_pixels(dy, row / t->down, row % t->down * size, column * size, size, zeros, pixels);
            if (row + 1 < stop) fetch_pixels(dy, row / t->down, row % t->down * size + size, column * size, size);
            for (int64_t c = 0; c < channels; c += LANES) {
                const int64_t n = smaller(LANES, channels - c);
                vec tile[PLANES];
                UNROLL for (int i = 0; i < size; i++)
                    UNROLL for (int j = 0; j < size; j++) tile[i * EDGE + j] = load_some(pixels[i * size + j] + c, n);
                evaluate_tile(tile, size);
                UNROLL for (int i = 0; i < PLANES; i++) store_some(planes + i * plane + c, tile[i], n);
            }
        }
}

/* The floats of a plane of a weight. */
INLINE int64_t weight_plane(int64_t inputs, int64_t outputs) { return inputs * whole_vectors(outputs) + LANES; }
