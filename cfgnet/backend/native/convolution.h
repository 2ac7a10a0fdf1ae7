/* Direct convolution in two dimensions, over arrays (samples, height, width, channels) and weights (tap, input channel,
   output channel): forward, the gradient of the input, and that of the weight.

   Forward and the gradient of the input are one loop: each pixel of the target sums products of some pixels of the
   source, one for each tap, with the weight of that tap. With a stride, the pixels of an input gradient fall into
   stride_h * stride_w classes that see different taps, and each class is a convolution with stride 1. */

#define FIELDS_conv(A, W, L, C, I, F)                                                                          \
    A(source) A(weight) A(bias) A(target)                                                                      \
    I(samples) I(group) I(turned) I(source_h) I(source_w) I(source_c) I(target_h) I(target_w) I(target_c)      \
    I(kernel_h) I(kernel_w) I(stride_h) I(stride_w) I(pad_h) I(pad_w) I(dilation_h) I(dilation_w)
DECLARE(conv)

enum { MOST_TAPS = 128, UNFOLD_CHANNELS = 4 };

/* The pixels of the target that see the same taps: y = y0 + i * step, and source pixel i * stride + offset[tap]. */
typedef struct {
    int64_t y0, x0, y_step, x_step, y_stride, x_stride, taps;
    int64_t y_offset[MOST_TAPS], x_offset[MOST_TAPS];
    const float *weight[MOST_TAPS];
} Lattice;

/* The lattice of class (y, x), of which a forward convolution has only (0, 0). */
static void find_lattice(const conv_args *c, int64_t y, int64_t x, Lattice *out) {
    int64_t depth = c->source_c / c->group;
    *out = c->turned ? (Lattice){y, x, c->stride_h, c->stride_w, 1, 1, 0}
                     : (Lattice){0, 0, 1, 1, c->stride_h, c->stride_w, 0};
    for (int64_t ky = 0; ky < c->kernel_h; ky++)
        for (int64_t kx = 0; kx < c->kernel_w; kx++) {
            int64_t dy = ky * c->dilation_h - c->pad_h, dx = kx * c->dilation_w - c->pad_w;
            if (c->turned) {
                dy = y - dy, dx = x - dx;
                if (dy % c->stride_h || dx % c->stride_w) continue;
                dy /= c->stride_h, dx /= c->stride_w;
            }
            out->y_offset[out->taps] = dy;
            out->x_offset[out->taps] = dx;
            out->weight[out->taps++] = c->weight + (ky * c->kernel_w + kx) * depth * c->target_c;
        }
}

/* Where a block's rows read and write: `pixels` pixels of a lattice from the `first` on, counted over lines y and columns
   x of `width`; rows beyond them repeat the last. */
static void place_rows(const conv_args *c, const Lattice *lattice, int64_t line, int64_t column, int64_t width,
                       int64_t lines_per_sample, int64_t pixels, int rows, const float *zeros, const float **a,
                       float **out) {
    int64_t sample = line / lines_per_sample, i = line % lines_per_sample, j = column;
    for (int r = 0; r < rows; r++) {
        int64_t y = i * lattice->y_stride, x = j * lattice->x_stride;
        const float *base = c->source + sample * c->source_h * c->source_w * c->source_c;
        for (int64_t tap = 0; tap < lattice->taps; tap++) {
            int64_t sy = y + lattice->y_offset[tap], sx = x + lattice->x_offset[tap];
            int inside = (uint64_t)sy < (uint64_t)c->source_h && (uint64_t)sx < (uint64_t)c->source_w;
            a[tap * rows + r] = inside ? base + (sy * c->source_w + sx) * c->source_c : zeros;
        }
        int64_t ty = lattice->y0 + i * lattice->y_step, tx = lattice->x0 + j * lattice->x_step;
        out[r] = c->target + ((sample * c->target_h + ty) * c->target_w + tx) * c->target_c;
        if (r + 1 >= pixels) continue;
        if (++j == width) j = 0, i++;
        if (i == lines_per_sample) i = 0, sample++;
    }
}

/* The taps of each row in one piece, where there are too few channels to make a loop of. */
static void unfold_rows(const float **a, int64_t taps, int64_t depth, int rows, float *work) {
    for (int r = 0; r < rows; r++) {
        float *to = work + r * taps * depth;
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t k = 0; k < depth; k++) *to++ = a[tap * rows + r][k];
        a[r] = work + r * taps * depth;
    }
}

static int64_t conv_lines_per_part(const conv_args *c) {
    int64_t lines = c->samples * c->target_h, wanted = ceil_div(12 * MOST_ROWS, c->target_w);
    if (c->turned) wanted = ceil_div(wanted, c->stride_h) * c->stride_h;
    if (c->turned && c->target_h % c->stride_h) return ceil_div(wanted, c->target_h) * c->target_h;
    return smaller(wanted, lines);
}

static int64_t conv_own_work(const conv_args *c) {
    int64_t depth = c->source_c / c->group, taps = c->kernel_h * c->kernel_w;
    return whole_vectors(depth) + (depth <= UNFOLD_CHANNELS ? whole_vectors(MOST_ROWS * taps * depth) : 0);
}

static Demand conv_demand(const void *args) {
    const conv_args *c = args;
    return (Demand){ceil_div(c->samples * c->target_h, conv_lines_per_part(c)),
                    conv_own_work(c)};
}

/* All pixels of a lattice among the lines `first` to `stop` of the target, which begin and end with whole strides or
   with whole samples. */
static void convolve(const conv_args *c, const Lattice *lattice, int64_t first, int64_t stop, float *work) {
    const int64_t depth = c->source_c / c->group, columns = c->target_c / c->group;
    const int64_t per_sample = ceil_div(c->target_h - lattice->y0, lattice->y_step);
    const int64_t width = ceil_div(c->target_w - lattice->x0, lattice->x_step);
    const int64_t line0 = first / c->target_h * per_sample + first % c->target_h / lattice->y_step;
    const int64_t line1 = stop / c->target_h * per_sample + stop % c->target_h / lattice->y_step;
    const int unfold = depth <= UNFOLD_CHANNELS && !c->turned;
    const float *a[MOST_TAPS * MOST_ROWS];
    float *out[MOST_ROWS], *zeros = work;
    for (int64_t k = 0; k < depth; k++) zeros[k] = 0;
    for (int64_t column = 0; column < columns;) {
        const int v = block_vectors(ceil_div(columns - column, LANES)), rows = ROWS(v);
        for (int64_t pixel = 0; pixel < (line1 - line0) * width; pixel += rows) {
            int64_t pixels = smaller(rows, (line1 - line0) * width - pixel);
            place_rows(c, lattice, line0 + pixel / width, pixel % width, width, per_sample, pixels, rows, zeros, a, out);
            RowBlock t = {a, lattice->taps, depth, lattice->weight, column, c->target_c, NULL, out, pixels,
                          smaller((int64_t)v * LANES, columns - column), 0};
            if (c->bias) t.start = c->bias + column;
            for (int r = 0; r < rows; r++) out[r] += column;
            if (unfold) {
                unfold_rows(a, t.taps, depth, rows, work + whole_vectors(depth));
                t.depth *= t.taps, t.taps = 1;
            }
            ROW_BLOCKS[v][t.columns < v * LANES](&t);
        }
        column += v * LANES;
    }
}

/* The same for one group: a convolution of some channels of each pixel. */
static conv_args conv_group(const conv_args *whole, int64_t group) {
    conv_args c = *whole;
    c.source += group * (c.source_c / c.group);
    c.target += group * (c.target_c / c.group);
    c.weight += group * (c.target_c / c.group);
    if (c.bias) c.bias += group * (c.target_c / c.group);
    return c;
}

static void conv_run(const void *args, int64_t part, float *work) {
    const conv_args *c = args;
    int64_t step = conv_lines_per_part(c), first = part * step;
    int64_t stop = smaller(first + step, c->samples * c->target_h);
    Lattice lattice;
    for (int64_t group = 0; group < c->group; group++) {
        conv_args one = conv_group(c, group);
        for (int64_t y = 0; y < (c->turned ? c->stride_h : 1) && y < c->target_h; y++)
            for (int64_t x = 0; x < (c->turned ? c->stride_w : 1) && x < c->target_w; x++) {
                find_lattice(&one, y, x, &lattice);
                convolve(&one, &lattice, first, stop, work);
            }
    }
}

static Range conv_covers(const void *args, int64_t part) {
    const conv_args *c = args;
    const int64_t step = conv_lines_per_part(c), first = part * step, line = c->target_w * c->target_c;
    return (Range){first * line, (smaller(first + step, c->samples * c->target_h) - first) * line};
}

/* turn: (tap, input channel, output channel) -> (tap, output channel, input channel), within each group. */
#define FIELDS_turn(A, W, L, C, I, F) A(weight) A(turned) I(taps) I(group) I(inputs) I(outputs)
DECLARE(turn)

static Demand turn_demand(const void *args) { return (Demand){((const turn_args *)args)->taps, 0}; }

static void turn_run(const void *args, int64_t part, float *work) {
    const turn_args *t = args;
    int64_t in = t->inputs / t->group, out = t->outputs / t->group;
    const float *from = t->weight + part * in * t->outputs;
    float *to = t->turned + part * out * t->inputs;
    for (int64_t g = 0; g < t->group; g++)
        for (int64_t o = 0; o < out; o++)
            for (int64_t c = 0; c < in; c++) to[o * t->inputs + g * in + c] = from[c * t->outputs + g * out + o];
}

/* conv_dweight: each part sums its samples into a total of its own, (part, tap, input channel, output channel). */
#define FIELDS_conv_dweight(A, W, L, C, I, F)                                                                  \
    A(x) A(dy) A(totals) I(parts) I(samples) I(group) I(x_h) I(x_w) I(x_c) I(y_h) I(y_w) I(y_c)                \
    I(kernel_h) I(kernel_w) I(stride_h) I(stride_w) I(pad_h) I(pad_w) I(dilation_h) I(dilation_w)
DECLARE(conv_dweight)

enum { CHUNK = 1 << 15 }; /* about how many floats of x and dy are worked on at a time; they stay in a core's cache */

static int64_t dweight_lines(const conv_dweight_args *c) {
    int64_t per_line = c->y_w * c->y_c + c->stride_h * c->x_w * c->x_c;
    if (c->x_c / c->group <= UNFOLD_CHANNELS) per_line += c->y_w * c->kernel_h * c->kernel_w * c->x_c;
    return larger(1, smaller(c->y_h, CHUNK / per_line));
}

static Demand conv_dweight_demand(const void *args) {
    const conv_dweight_args *c = args;
    int64_t depth = c->x_c / c->group, unfolded = dweight_lines(c) * c->y_w * c->kernel_h * c->kernel_w * depth;
    return (Demand){c->parts, depth <= UNFOLD_CHANNELS ? unfolded : 0};
}

/* The range of outputs along an axis whose tap lies inside of the input. */
static void valid_range(int64_t inputs, int64_t outputs, int64_t stride, int64_t offset, int64_t *first, int64_t *stop) {
    *first = offset < 0 ? ceil_div(-offset, stride) : 0;
    *stop = offset >= inputs ? 0 : smaller(outputs, (inputs - 1 - offset) / stride + 1);
}

/* Lines `first` to `stop` of one sample, tap by tap. */
static void dweight_by_tap(const conv_dweight_args *c, const float *x, const float *dy, float *total, int64_t first,
                           int64_t stop) {
    const int64_t in = c->x_c / c->group;
    for (int64_t ky = 0; ky < c->kernel_h; ky++)
        for (int64_t kx = 0; kx < c->kernel_w; kx++, total += in * c->y_c) {
            int64_t y = ky * c->dilation_h - c->pad_h, x_at = kx * c->dilation_w - c->pad_w, y0, y1, x0, x1;
            valid_range(c->x_h, c->y_h, c->stride_h, y, &y0, &y1);
            valid_range(c->x_w, c->y_w, c->stride_w, x_at, &x0, &x1);
            y0 = larger(y0, first), y1 = smaller(y1, stop);
            if (y0 >= y1 || x0 >= x1) continue;
            ColumnBlock t = {
                .lines = y1 - y0, .depth = x1 - x0,
                .a = x + ((y0 * c->stride_h + y) * c->x_w + x0 * c->stride_w + x_at) * c->x_c,
                .a_line = c->stride_h * c->x_w * c->x_c, .step = c->stride_w * c->x_c,
                .b = dy + (y0 * c->y_w + x0) * c->y_c, .b_line = c->y_w * c->y_c, .ldb = c->y_c,
                .out = total, .ldout = c->y_c, .rows = in, .columns = c->y_c / c->group,
            };
            run_columns(&t);
        }
}

/* The same with all taps in one piece, where there are too few channels to fill a block. */
static void dweight_unfolded(const conv_dweight_args *c, const float *x, const float *dy, float *total, int64_t first,
                             int64_t stop, float *work) {
    const int64_t in = c->x_c / c->group, taps = c->kernel_h * c->kernel_w;
    float *to = work;
    for (int64_t y = first; y < stop; y++)
        for (int64_t x_out = 0; x_out < c->y_w; x_out++)
            for (int64_t ky = 0; ky < c->kernel_h; ky++)
                for (int64_t kx = 0; kx < c->kernel_w; kx++, to += in) {
                    int64_t sy = y * c->stride_h - c->pad_h + ky * c->dilation_h;
                    int64_t sx = x_out * c->stride_w - c->pad_w + kx * c->dilation_w;
                    int inside = (uint64_t)sy < (uint64_t)c->x_h && (uint64_t)sx < (uint64_t)c->x_w;
                    for (int64_t k = 0; k < in; k++) to[k] = inside ? x[(sy * c->x_w + sx) * c->x_c + k] : 0;
                }
    ColumnBlock t = {
        .lines = 1, .depth = (stop - first) * c->y_w, .a = work, .step = taps * in,
        .b = dy + first * c->y_w * c->y_c, .ldb = c->y_c,
        .out = total, .ldout = c->y_c, .rows = taps * in, .columns = c->y_c / c->group,
    };
    run_columns(&t);
}

static void conv_dweight_run(const void *args, int64_t part, float *work) {
    const conv_dweight_args *c = args;
    const int64_t in = c->x_c / c->group, out = c->y_c / c->group, size = c->kernel_h * c->kernel_w * in * c->y_c;
    const int64_t step = dweight_lines(c);
    float *total = c->totals + part * size;
    for (int64_t i = 0; i < size; i++) total[i] = 0;
    for (int64_t n = c->samples * part / c->parts; n < c->samples * (part + 1) / c->parts; n++)
        for (int64_t first = 0; first < c->y_h; first += step)
            for (int64_t group = 0; group < c->group; group++) {
                const float *x = c->x + n * c->x_h * c->x_w * c->x_c + group * in;
                const float *dy = c->dy + n * c->y_h * c->y_w * c->y_c + group * out;
                int64_t stop = smaller(first + step, c->y_h);
                if (in <= UNFOLD_CHANNELS)
                    dweight_unfolded(c, x, dy, total + group * out, first, stop, work);
                else
                    dweight_by_tap(c, x, dy, total + group * out, first, stop);
            }
}

/* gather: out += the sum of the rows of totals (count, size). */
#define FIELDS_gather(A, W, L, C, I, F) A(totals) A(out) I(count) I(size) I(add)
DECLARE(gather)

enum { GATHERED = 1 << 12 };

static Demand gather_demand(const void *args) {
    return (Demand){ceil_div(((const gather_args *)args)->size, GATHERED), 0};
}

static void gather_run(const void *args, int64_t part, float *work) {
    const gather_args *g = args;
    for (int64_t i = part * GATHERED; i < smaller(g->size, (part + 1) * GATHERED); i++) {
        float sum = g->totals[i];
        for (int64_t n = 1; n < g->count; n++) sum += g->totals[n * g->size + i];
        g->out[i] = g->add ? g->out[i] + sum : sum;
    }
}
