/* Winograd's convolution, of which tiles.h has the mathematics: forward, the gradient of the input, and that of the
   weight. */

#define FIELDS_winograd(A, W, L, C, I, F)                                                                      \
    A(source) A(weight) A(bias) A(target) I(samples) I(source_h) I(source_w) I(source_c)                       \
    I(target_h) I(target_w) I(target_c) I(group) I(kernel) I(offset_h) I(offset_w)
DECLARE(winograd)

/* A' M A plus the bias, for the same tiles, into the target. */
INLINE void transform_output(const winograd_args *w, const Tiling *t, const int size, int64_t first, int64_t stop,
                             const float *planes) {
    const int64_t channels = w->target_c / w->group, plane = plane_floats(t, channels);
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += channels) {
            const int64_t y = row % t->down * size, x = column * size;
            const int64_t down = smaller(size, w->target_h - y), across = smaller(size, w->target_w - x);
            float *target = w->target + ((row / t->down * w->target_h + y) * w->target_w + x) * w->target_c;
            for (int64_t c = 0; c < channels; c += LANES) {
                const int64_t n = smaller(LANES, channels - c);
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

/* Forward, and with the turned weight the gradient of the input. weight: (group, 36, inputs * outputs), packed. */

static Tiling winograd_tiling(const winograd_args *w) {
    const int64_t in = w->source_c / w->group, out = w->target_c / w->group;
    return tiling(w->kernel, w->target_h, w->target_w, w->samples, in + out,
                  PLANES * in * out > LARGE_WEIGHT ? MORE_TILES : LEAST_TILES);
}

static Demand winograd_demand(const void *args) {
    const winograd_args *w = args;
    const Tiling t = winograd_tiling(w);
    const int64_t in = w->source_c / w->group, out = w->target_c / w->group;
    const int64_t planes = PLANES * (plane_floats(&t, in) + plane_floats(&t, out));
    return (Demand){ceil_div(w->samples * t.down, t.rows), planes + whole_vectors(in)};
}

/* The first element of a row of tiles. */
static int64_t winograd_start(const winograd_args *w, const Tiling *t, int64_t row) {
    return (row / t->down * w->target_h + row % t->down * t->size) * w->target_w * w->target_c;
}

/* Asks for some of the lines of memory that rows of tiles are written to, so that they come while a plane is multiplied:
   to write a part of a line takes reading it. */
INLINE void fetch_target(const winograd_args *w, const Tiling *t, int64_t first, int64_t stop, int64_t plane) {
    const int64_t start = winograd_start(w, t, first), lines = (winograd_start(w, t, stop) - start) / LINE;
    for (int64_t line = lines * plane / PLANES; line < lines * (plane + 1) / PLANES; line++)
        __builtin_prefetch(w->target + start + line * LINE, 1, 2);
}

/* Rows of tiles of one group. */
static void winograd_tiles(const winograd_args *w, const Tiling *t, int64_t first, int64_t stop, float *work) {
    const int64_t in = w->source_c / w->group, out = w->target_c / w->group;
    const int64_t x_plane = plane_floats(t, in), y_plane = plane_floats(t, out), size = weight_plane(in, out);
    const Images source = {w->source, w->source_h, w->source_w, w->source_c, in};
    float *zeros = work, *x = zeros + whole_vectors(in), *y = x + PLANES * x_plane;
    clear_floats(zeros, in);
    transform_input(&source, t, w->offset_h, w->offset_w, first, stop, zeros, x);
    for (int64_t p = 0; p < PLANES; p++) {
        fetch_target(w, t, first, stop, p);
        run_rows(x + p * x_plane, in, w->weight + p * size, y + p * y_plane, out, (stop - first) * t->across, in, out);
    }
    if (t->size == 4)
        transform_output(w, t, 4, first, stop, y);
    else
        transform_output(w, t, 2, first, stop, y);
}

static void winograd_run(const void *args, int64_t part, float *work) {
    const winograd_args *w = args;
    const Tiling t = winograd_tiling(w);
    const int64_t first = part * t.rows, stop = smaller(first + t.rows, w->samples * t.down);
    const int64_t in = w->source_c / w->group, out = w->target_c / w->group;
    winograd_args one = *w;
    for (int64_t group = 0; group < w->group; group++) {
        winograd_tiles(&one, &t, first, stop, work);
        one.source += in, one.target += out, one.weight += PLANES * weight_plane(in, out);
        if (one.bias) one.bias += out;
    }
}

static Range winograd_covers(const void *args, int64_t part) {
    const winograd_args *w = args;
    const Tiling t = winograd_tiling(w);
    const int64_t first = part * t.rows, stop = smaller(first + t.rows, w->samples * t.down);
    const int64_t start = winograd_start(w, &t, first);
    return (Range){start, winograd_start(w, &t, stop) - start};
}

/* winograd_weight: G g G' of a packed weight, (group, tap, inputs * outputs), packed as well; with `reverse`, of the
   taps in reverse order. inputs, outputs: of one group. */

#define FIELDS_winograd_weight(A, W, L, C, I, F)                                                               \
    A(weight) A(planes) I(group) I(kernel) I(inputs) I(outputs) I(reverse)
DECLARE(winograd_weight)

static Demand winograd_weight_demand(const void *args) {
    const winograd_weight_args *w = args;
    return (Demand){w->group * w->inputs, 0};
}

/* Some columns of a panel, of which one tap takes `step` floats; a plane takes `plane`. */
INLINE void winograd_weight_tile(const float *from, int64_t step, float *to, int64_t plane, const int kernel,
                                 int reverse) {
    vec tile[PLANES];
    UNROLL for (int i = 0; i < kernel; i++)
        UNROLL for (int j = 0; j < kernel; j++) {
            const int tap = i * kernel + j;
            tile[i * EDGE + j] = load(from + (reverse ? kernel * kernel - 1 - tap : tap) * step);
        }
    evaluate_tile(tile, kernel);
    UNROLL for (int i = 0; i < PLANES; i++) store(to + i * plane, SCALES[i / EDGE] * SCALES[i % EDGE] * tile[i]);
}

static void winograd_weight_run(const void *args, int64_t part, float *work) {
    const winograd_weight_args *w = args;
    const int64_t group = part / w->inputs, input = part % w->inputs, plane = weight_plane(w->inputs, w->outputs);
    const int64_t matrix = w->inputs * whole_vectors(w->outputs);
    const int64_t taps = w->kernel * w->kernel;
    for (int64_t column = 0; column < w->outputs; column += panel_width(column, w->outputs)) {
        const int64_t width = panel_width(column, w->outputs);
        const float *from = w->weight + group * taps * matrix + column * taps * w->inputs + input * width;
        float *to = w->planes + group * PLANES * plane + column * w->inputs + input * width;
        for (int64_t c = 0; c < width; c += LANES)
            if (w->kernel == 3)
                winograd_weight_tile(from + c, w->inputs * width, to + c, plane, 3, (int)w->reverse);
            else
                winograd_weight_tile(from + c, w->inputs * width, to + c, plane, 5, (int)w->reverse);
    }
}

/* winograd_dweight: totals (share, tap, inputs / group, outputs). A part sums the products of its tiles for some input
   channels, some output channels and a share of the samples: few enough channels that its sums stay in a core's cache,
   and shares where that leaves too few parts for all threads. Slices are those of all channels of an input, or output. */

#define FIELDS_winograd_dweight(A, W, L, C, I, F)                                                              \
    A(x) A(dy) A(totals) I(shares) I(x_slices) I(y_slices) I(samples) I(group) I(x_h) I(x_w) I(x_c)            \
    I(y_h) I(y_w) I(y_c) I(kernel) I(offset_h) I(offset_w)
DECLARE(winograd_dweight)

/* The channels of a slice, one of `slices` of a group with `channels`. */
INLINE Range channel_slice(int64_t channels, int64_t slices, int64_t slice) {
    const int64_t vectors = ceil_div(channels, LANES), first = vectors * slice / slices * LANES;
    return (Range){first, smaller(channels, vectors * (slice + 1) / slices * LANES) - first};
}

/* The most channels that a slice has. */
INLINE int64_t slice_channels(int64_t channels, int64_t slices) {
    return smaller(channels, ceil_div(ceil_div(channels, LANES), slices) * LANES);
}

static Tiling dweight_tiling(const winograd_dweight_args *w, int64_t in, int64_t out) {
    return tiling(w->kernel, w->y_h, w->y_w, ceil_div(w->samples, w->shares), in + out, LEAST_TILES);
}

static Demand winograd_dweight_demand(const void *args) {
    const winograd_dweight_args *w = args;
    const int64_t in = slice_channels(w->x_c / w->group, w->x_slices);
    const int64_t out = slice_channels(w->y_c / w->group, w->y_slices);
    const Tiling t = dweight_tiling(w, in, out);
    const int64_t planes = PLANES * (plane_floats(&t, in) + plane_floats(&t, out) + whole_vectors(in * out));
    return (Demand){w->shares * w->group * w->x_slices * w->y_slices, planes + whole_vectors(larger(in, out))};
}

/* Adds the products of the rows of tiles `first` to `stop` to sums (36, inputs, outputs). */
static void dweight_tiles(const winograd_dweight_args *w, const Images *x, const Images *dy, const Tiling *t,
                          int64_t first, int64_t stop, float *sums, float *work) {
    const int64_t in = plane_floats(t, x->depth), out = plane_floats(t, dy->depth), size = x->depth * dy->depth;
    float *zeros = work, *x_planes = zeros + whole_vectors(larger(x->depth, dy->depth));
    float *y_planes = x_planes + PLANES * in;
    clear_floats(zeros, larger(x->depth, dy->depth));
    transform_input(x, t, w->offset_h, w->offset_w, first, stop, zeros, x_planes);
    if (t->size == 4)
        transform_gradient(dy, t, 4, first, stop, zeros, y_planes);
    else
        transform_gradient(dy, t, 2, first, stop, zeros, y_planes);
    for (int64_t p = 0; p < PLANES; p++) {
        ColumnBlock block = {
            .lines = 1, .depth = (stop - first) * t->across, .a = x_planes + p * in, .step = x->depth,
            .b = y_planes + p * out, .ldb = dy->depth,
            .out = sums + p * size, .ldout = dy->depth, .rows = x->depth, .columns = dy->depth,
        };
        run_columns(&block);
    }
}

/* total (tap, input, output) = G' sums G, where taps lie `tap_step` and inputs `ldout` apart. */
INLINE void collect_weight(const float *sums, int64_t inputs, int64_t outputs, const int kernel, float *total,
                           int64_t tap_step, int64_t ldout) {
    for (int64_t input = 0; input < inputs; input++)
        for (int64_t o = 0; o < outputs; o += LANES) {
            const int64_t n = smaller(LANES, outputs - o);
            vec tile[PLANES];
            UNROLL for (int i = 0; i < PLANES; i++)
                tile[i] = SCALES[i / EDGE] * SCALES[i % EDGE] * load_some(sums + (i * inputs + input) * outputs + o, n);
            collect_tile(tile, kernel);
            UNROLL for (int i = 0; i < kernel; i++)
                UNROLL for (int j = 0; j < kernel; j++)
                    store_some(total + (i * kernel + j) * tap_step + input * ldout + o, tile[i * EDGE + j], n);
        }
}

static void winograd_dweight_run(const void *args, int64_t part, float *work) {
    const winograd_dweight_args *w = args;
    const int64_t all_in = w->x_c / w->group, all_out = w->y_c / w->group;
    const Tiling most = dweight_tiling(w, slice_channels(all_in, w->x_slices), slice_channels(all_out, w->y_slices));
    const int64_t share = part % w->shares, slice = part / w->shares, group = slice / (w->x_slices * w->y_slices);
    const Range in = channel_slice(all_in, w->x_slices, slice / w->y_slices % w->x_slices);
    const Range out = channel_slice(all_out, w->y_slices, slice % w->y_slices);
    const Images x = {w->x + group * all_in + in.first, w->x_h, w->x_w, w->x_c, in.count};
    const Images dy = {w->dy + group * all_out + out.first, w->y_h, w->y_w, w->y_c, out.count};
    float *sums = work, *rest = sums + PLANES * whole_vectors(in.count * out.count);
    clear_floats(sums, PLANES * in.count * out.count);
    const int64_t rows = w->samples * most.down, end = rows * (share + 1) / w->shares;
    for (int64_t first = rows * share / w->shares; first < end; first += most.rows)
        dweight_tiles(w, &x, &dy, &most, first, smaller(first + most.rows, end), sums, rest);
    const int64_t tap = all_in * w->y_c;
    float *total = w->totals + share * w->kernel * w->kernel * tap + in.first * w->y_c + group * all_out + out.first;
    if (w->kernel == 3)
        collect_weight(sums, in.count, out.count, 3, total, tap, w->y_c);
    else
        collect_weight(sums, in.count, out.count, 5, total, tap, w->y_c);
}

/* winograd_dx: the gradient of the input as the transpose of forward, which needs as many tiles as that: fewer than the
   input has, where there is little padding. Tiles overlap and are added, so that a part is some whole samples. weight:
   (group, 36, outputs * inputs), packed. */

#define FIELDS_winograd_dx(A, W, L, C, I, F)                                                                   \
    A(dy) A(weight) A(dx) I(samples) I(group) I(x_h) I(x_w) I(x_c) I(y_h) I(y_w) I(y_c) I(kernel) I(offset_h)  \
    I(offset_w)
DECLARE(winograd_dx)

/* The tiles of a chunk, which may be more than those of a sample. */
static Tiling dx_tiling(const winograd_dx_args *w) {
    return tiling(w->kernel, w->y_h, w->y_w, w->samples, (w->x_c + w->y_c) / w->group, LEAST_TILES);
}

static int64_t dx_samples(const winograd_dx_args *w, const Tiling *t) { return ceil_div(t->rows, t->down); }

static Demand winograd_dx_demand(const void *args) {
    const winograd_dx_args *w = args;
    const Tiling t = dx_tiling(w);
    const int64_t in = w->x_c / w->group, out = w->y_c / w->group;
    return (Demand){ceil_div(w->samples, dx_samples(w, &t)),
                    whole_vectors(out) + PLANES * (plane_floats(&t, in) + plane_floats(&t, out))};
}

/* Adds B X B' of rows of tiles to the input gradient, whose pixels are written. */
static void add_tiles(const winograd_dx_args *w, const Images *dx, const Tiling *t, int64_t first, int64_t stop,
                      const float *planes) {
    const int64_t plane = plane_floats(t, dx->depth);
    const float *pixels[PLANES];
    for (int64_t row = first; row < stop; row++)
        for (int64_t column = 0; column < t->across; column++, planes += dx->depth) {
            locate_pixels(dx, row / t->down, row % t->down * t->size + w->offset_h, column * t->size + w->offset_w, EDGE,
                          NULL, pixels);
            for (int64_t c = 0; c < dx->depth; c += LANES) {
                const int64_t n = smaller(LANES, dx->depth - c);
                vec tile[PLANES];
                UNROLL for (int i = 0; i < PLANES; i++) tile[i] = load_some(planes + i * plane + c, n);
                UNROLL for (int j = 0; j < EDGE; j++) winograd_input_back(tile + j, EDGE, tile + j);
                UNROLL for (int i = 0; i < EDGE; i++) winograd_input_back(tile + i * EDGE, 1, tile + i * EDGE);
                UNROLL for (int i = 0; i < PLANES; i++) {
                    float *to = (float *)pixels[i] + c;
                    if (pixels[i]) store_some(to, load_some(to, n) + tile[i], n);
                }
            }
        }
}

/* Rows of tiles of one group. */
static void dx_tiles(const winograd_dx_args *w, int64_t group, const Tiling *t, int64_t first, int64_t stop,
                     float *work) {
    const int64_t in = w->x_c / w->group, out = w->y_c / w->group, size = weight_plane(out, in);
    const int64_t x_plane = plane_floats(t, in), y_plane = plane_floats(t, out);
    const Images dx = {w->dx + group * in, w->x_h, w->x_w, w->x_c, in};
    const Images dy = {w->dy + group * out, w->y_h, w->y_w, w->y_c, out};
    const float *weight = w->weight + group * PLANES * size;
    float *zeros = work, *x = zeros + whole_vectors(out), *y = x + PLANES * x_plane;
    clear_floats(zeros, out);
    if (t->size == 4)
        transform_gradient(&dy, t, 4, first, stop, zeros, y);
    else
        transform_gradient(&dy, t, 2, first, stop, zeros, y);
    for (int64_t p = 0; p < PLANES; p++)
        run_rows(y + p * y_plane, out, weight + p * size, x + p * x_plane, in, (stop - first) * t->across, out, in);
    add_tiles(w, &dx, t, first, stop, x);
}

static void winograd_dx_run(const void *args, int64_t part, float *work) {
    const winograd_dx_args *w = args;
    const Tiling t = dx_tiling(w);
    const int64_t step = dx_samples(w, &t), from = part * step, to = smaller(from + step, w->samples);
    const int64_t image = w->x_h * w->x_w * w->x_c;
    clear_floats(w->dx + from * image, (to - from) * image);
    for (int64_t group = 0; group < w->group; group++)
        for (int64_t first = from * t.down; first < to * t.down; first += t.rows)
            dx_tiles(w, group, &t, first, smaller(first + t.rows, to * t.down), work);
}

static Range winograd_dx_covers(const void *args, int64_t part) {
    const winograd_dx_args *w = args;
    const Tiling t = dx_tiling(w);
    const int64_t step = dx_samples(w, &t), from = part * step, image = w->x_h * w->x_w * w->x_c;
    return (Range){from * image, (smaller(from + step, w->samples) - from) * image};
}
