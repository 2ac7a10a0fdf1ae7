/* Winograd's convolution with tiles of 6x6 (Winograd 1980; Lavin and Gray 2016), for kernels of 3x3 and of 5x5 with
   stride 1: forward, the gradient of the input, and that of the weight.

   A tile of the input, 6x6 pixels, and a kernel of r x r are polynomials, which are evaluated at the points 0, 1, -1, 2,
   -2 and infinity in both directions. There a convolution is 36 products, so that a tile gives (7 - r) x (7 - r) pixels
   of the output. For each of the 36 places, the sum over channels is a product of matrices, (tiles, inputs) by (inputs,
   outputs). With M as the tile of the output, and g as the kernel,

     M = A' [(G g G') * (B' x B)] A    and    dg = G' [(B' x B) * (A dM A')] G,

   where A and G are the same evaluation, of 7 - r and of r values, apart from the factors that G carries.

   A part is some rows of tiles, few enough that what is in between stays in a core's cache. Each of the 36 planes ends
   with a vector that nobody reads, so that their beginnings do not all fall on the same lines of the fastest cache. */

#define FIELDS_winograd(A, W, L, C, I, F)                                                                      \
    A(source) A(weight) A(bias) A(target) I(samples) I(source_h) I(source_w) I(source_c)               \
    I(target_h) I(target_w) I(target_c) I(kernel) I(offset_h) I(offset_w)
DECLARE(winograd)

enum { EDGE = 6, PLANES = EDGE * EDGE, WINOGRAD_CACHE = 1 << 18 /* floats in between */, LEAST_TILES = 24 };

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

static Tiling tiling(int64_t kernel, int64_t height, int64_t width, int64_t samples, int64_t channels) {
    Tiling t = {.size = EDGE + 1 - kernel};
    t.down = ceil_div(height, t.size);
    t.across = ceil_div(width, t.size);
    int64_t fit = WINOGRAD_CACHE / (PLANES * channels * t.across), most = ceil_div(t.down * samples, 4);
    t.rows = larger(1, smaller(larger(fit, ceil_div(LEAST_TILES, t.across)), most));
    return t;
}

static int64_t plane_floats(const Tiling *t, int64_t channels) {
    return whole_vectors(t->rows * t->across * channels) + LANES;
}

/* The pixels of a square of an image, `edge` in each direction from (y, x) on; zeros outside. */
INLINE void locate_pixels(const float *image, int64_t height, int64_t width, int64_t channels, int64_t y, int64_t x,
                          const int edge, const float *zeros, const float **pixels) {
    for (int i = 0; i < edge; i++)
        for (int j = 0; j < edge; j++) {
            int inside = (uint64_t)(y + i) < (uint64_t)height && (uint64_t)(x + j) < (uint64_t)width;
            pixels[i * edge + j] = inside ? image + ((y + i) * width + x + j) * channels : zeros;
        }
}

/* B' x B of the rows of tiles `first` to `stop`: planes[p * plane + tile * channels + channel]. */
static void transform_input(const float *x, int64_t height, int64_t width, int64_t channels, const Tiling *t,
                            int64_t offset_h, int64_t offset_w, int64_t first, int64_t stop, const float *zeros,
                            float *planes) {
    const int64_t plane = plane_floats(t, channels);
    const float *pixels[PLANES];
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += channels) {
            locate_pixels(x + row / t->down * height * width * channels, height, width, channels,
                          row % t->down * t->size + offset_h, column * t->size + offset_w, EDGE, zeros, pixels);
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
INLINE void transform_gradient(const float *dy, int64_t height, int64_t width, int64_t channels, const Tiling *t,
                               const int size, int64_t first, int64_t stop, const float *zeros, float *planes) {
    const int64_t plane = plane_floats(t, channels);
    const float *pixels[PLANES];
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += channels) {
            locate_pixels(dy + row / t->down * height * width * channels, height, width, channels,
                          row % t->down * size, column * size, size, zeros, pixels);
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

/* A' M A plus the bias, for the same tiles, into the target. */
INLINE void transform_output(const winograd_args *w, const Tiling *t, const int size, int64_t first, int64_t stop,
                             const float *planes) {
    const int64_t plane = plane_floats(t, w->target_c);
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += w->target_c) {
            const int64_t y = row % t->down * size, x = column * size;
            const int64_t down = smaller(size, w->target_h - y), across = smaller(size, w->target_w - x);
            float *target = w->target + ((row / t->down * w->target_h + y) * w->target_w + x) * w->target_c;
            for (int64_t c = 0; c < w->target_c; c += LANES) {
                const int64_t n = smaller(LANES, w->target_c - c);
                const vec bias = w->bias ? load_some(w->bias + c, n) : splat(0);
                vec tile[PLANES];
                UNROLL for (int i = 0; i < PLANES; i++) tile[i] = load_some(planes + i * plane + c, n);
                collect_tile(tile, size);
                UNROLL for (int i = 0; i < size; i++)
                    UNROLL for (int j = 0; j < size; j++)
                        if (i < down && j < across)
                            store_some(target + (i * w->target_w + j) * w->target_c + c, tile[i * EDGE + j] + bias, n);
            }
        }
}

/* Forward, and with the turned weight the gradient of the input. weight: (36, inputs, outputs). */

static Tiling winograd_tiling(const winograd_args *w) {
    return tiling(w->kernel, w->target_h, w->target_w, w->samples, w->source_c + w->target_c);
}

static Demand winograd_demand(const void *args) {
    const winograd_args *w = args;
    Tiling t = winograd_tiling(w);
    int64_t planes = PLANES * (plane_floats(&t, w->source_c) + plane_floats(&t, w->target_c));
    return (Demand){ceil_div(w->samples * t.down, t.rows), planes + whole_vectors(w->source_c)};
}

static void winograd_run(const void *args, int64_t part, float *work) {
    const winograd_args *w = args;
    const Tiling t = winograd_tiling(w);
    const int64_t first = part * t.rows, stop = smaller(first + t.rows, w->samples * t.down);
    const int64_t in = plane_floats(&t, w->source_c), out = plane_floats(&t, w->target_c);
    float *zeros = work, *x = zeros + whole_vectors(w->source_c), *y = x + PLANES * in;
    for (int64_t c = 0; c < w->source_c; c++) zeros[c] = 0;
    transform_input(w->source, w->source_h, w->source_w, w->source_c, &t, w->offset_h, w->offset_w, first, stop, zeros,
                    x);
    for (int64_t p = 0; p < PLANES; p++)
        run_rows(x + p * in, w->source_c, w->weight + p * w->source_c * w->target_c, w->target_c, y + p * out,
                 w->target_c, (stop - first) * t.across, w->source_c, w->target_c);
    if (t.size == 4)
        transform_output(w, &t, 4, first, stop, y);
    else
        transform_output(w, &t, 2, first, stop, y);
}

/* The first element of a row of tiles. */
static int64_t winograd_start(const winograd_args *w, const Tiling *t, int64_t row) {
    return (row / t->down * w->target_h + row % t->down * t->size) * w->target_w * w->target_c;
}

static Range winograd_covers(const void *args, int64_t part) {
    const winograd_args *w = args;
    const Tiling t = winograd_tiling(w);
    const int64_t first = part * t.rows, stop = smaller(first + t.rows, w->samples * t.down);
    const int64_t start = winograd_start(w, &t, first);
    return (Range){start, winograd_start(w, &t, stop) - start};
}

/* winograd_weight: G g G' of a weight (tap, inputs, outputs); with `turned`, of the taps in reverse order. */

#define FIELDS_winograd_weight(A, W, L, C, I, F) A(weight) A(planes) I(kernel) I(inputs) I(outputs) I(turned)
DECLARE(winograd_weight)

static Demand winograd_weight_demand(const void *args) {
    return (Demand){((const winograd_weight_args *)args)->inputs, 0};
}

INLINE void winograd_weight_row(const winograd_weight_args *w, int64_t input, const int kernel) {
    const int64_t size = w->inputs * w->outputs;
    for (int64_t o = 0; o < w->outputs; o += LANES) {
        const int64_t n = smaller(LANES, w->outputs - o), at = input * w->outputs + o;
        vec tile[PLANES];
        UNROLL for (int i = 0; i < kernel; i++)
            UNROLL for (int j = 0; j < kernel; j++) {
                const int tap = i * kernel + j;
                tile[i * EDGE + j] = load_some(w->weight + (w->turned ? kernel * kernel - 1 - tap : tap) * size + at, n);
            }
        evaluate_tile(tile, kernel);
        UNROLL for (int i = 0; i < PLANES; i++)
            store_some(w->planes + i * size + at, SCALES[i / EDGE] * SCALES[i % EDGE] * tile[i], n);
    }
}

static void winograd_weight_run(const void *args, int64_t part, float *work) {
    const winograd_weight_args *w = args;
    if (w->kernel == 3)
        winograd_weight_row(w, part, 3);
    else
        winograd_weight_row(w, part, 5);
}

/* winograd_dweight: each part sums the products of its tiles into planes of its own, (part, 36, inputs, outputs). */

#define FIELDS_winograd_dweight(A, W, L, C, I, F)                                                              \
    A(x) A(dy) A(totals) I(parts) I(samples) I(x_h) I(x_w) I(x_c) I(y_h) I(y_w) I(y_c) I(kernel) I(offset_h)   \
    I(offset_w)
DECLARE(winograd_dweight)

static Tiling dweight_tiling(const winograd_dweight_args *w) {
    return tiling(w->kernel, w->y_h, w->y_w, w->samples, w->x_c + w->y_c);
}

static Demand winograd_dweight_demand(const void *args) {
    const winograd_dweight_args *w = args;
    Tiling t = dweight_tiling(w);
    int64_t planes = PLANES * (plane_floats(&t, w->x_c) + plane_floats(&t, w->y_c));
    return (Demand){w->parts, planes + whole_vectors(larger(w->x_c, w->y_c))};
}

static void winograd_dweight_run(const void *args, int64_t part, float *work) {
    const winograd_dweight_args *w = args;
    const Tiling t = dweight_tiling(w);
    const int64_t in = plane_floats(&t, w->x_c), out = plane_floats(&t, w->y_c), size = w->x_c * w->y_c;
    float *zeros = work, *x = zeros + whole_vectors(larger(w->x_c, w->y_c)), *y = x + PLANES * in;
    float *totals = w->totals + part * PLANES * size;
    for (int64_t c = 0; c < larger(w->x_c, w->y_c); c++) zeros[c] = 0;
    for (int64_t i = 0; i < PLANES * size; i++) totals[i] = 0;
    const int64_t rows = w->samples * t.down, end = rows * (part + 1) / w->parts;
    for (int64_t first = rows * part / w->parts; first < end; first += t.rows) {
        const int64_t stop = smaller(first + t.rows, end);
        transform_input(w->x, w->x_h, w->x_w, w->x_c, &t, w->offset_h, w->offset_w, first, stop, zeros, x);
        if (t.size == 4)
            transform_gradient(w->dy, w->y_h, w->y_w, w->y_c, &t, 4, first, stop, zeros, y);
        else
            transform_gradient(w->dy, w->y_h, w->y_w, w->y_c, &t, 2, first, stop, zeros, y);
        for (int64_t p = 0; p < PLANES; p++) {
            ColumnBlock block = {
                .lines = 1, .depth = (stop - first) * t.across, .a = x + p * in, .step = w->x_c,
                .b = y + p * out, .ldb = w->y_c,
                .out = totals + p * size, .ldout = w->y_c, .rows = w->x_c, .columns = w->y_c,
            };
            run_columns(&block);
        }
    }
}

/* winograd_gather: dweight (tap, inputs, outputs) = or += G' (sum of the parts) G. */

#define FIELDS_winograd_gather(A, W, L, C, I, F) A(totals) A(dweight) I(parts) I(kernel) I(inputs) I(outputs) I(add)
DECLARE(winograd_gather)

static Demand winograd_gather_demand(const void *args) {
    return (Demand){((const winograd_gather_args *)args)->inputs, 0};
}

INLINE void winograd_gather_row(const winograd_gather_args *w, int64_t input, const int kernel) {
    const int64_t size = w->inputs * w->outputs;
    for (int64_t o = 0; o < w->outputs; o += LANES) {
        const int64_t n = smaller(LANES, w->outputs - o), at = input * w->outputs + o;
        vec tile[PLANES];
        for (int i = 0; i < PLANES; i++) {
            vec sum = load_some(w->totals + i * size + at, n);
            for (int64_t part = 1; part < w->parts; part++)
                sum += load_some(w->totals + (part * PLANES + i) * size + at, n);
            tile[i] = SCALES[i / EDGE] * SCALES[i % EDGE] * sum;
        }
        collect_tile(tile, kernel);
        UNROLL for (int i = 0; i < kernel; i++)
            UNROLL for (int j = 0; j < kernel; j++) {
                float *to = w->dweight + (i * kernel + j) * size + at;
                store_some(to, tile[i * EDGE + j] + (w->add ? load_some(to, n) : splat(0)), n);
            }
    }
}

static void winograd_gather_run(const void *args, int64_t part, float *work) {
    const winograd_gather_args *w = args;
    if (w->kernel == 3)
        winograd_gather_row(w, part, 3);
    else
        winograd_gather_row(w, part, 5);
}
