/* Direct convolution in two dimensions, over arrays (samples, height, width, channels) and packed weights: forward, the
   gradient of the input, and that of the weight.

   Forward and the gradient of the input are one loop: each pixel of the target sums products of some pixels of the
   source, one for each tap, with the weight of that tap. With a stride, the pixels of an input gradient fall into
   stride_h * stride_w classes that see different taps, and each class is a convolution with stride 1. */

#define FIELDS_conv(A, W, L, C, I, F)                                                                          \
    A(source) A(weight) A(bias) A(target)                                                                      \
    I(samples) I(group) I(turned) I(source_h) I(source_w) I(source_c) I(target_h) I(target_w) I(target_c)      \
    I(kernel_h) I(kernel_w) I(stride_h) I(stride_w) I(pad_h) I(pad_w) I(dilation_h) I(dilation_w)
DECLARE(conv)

enum { MOST_TAPS = 128, PART_PIXELS = 12 * MOST_ROWS };

/* The source with the zeros that its taps need. */
static Lines conv_lines(const conv_args *c) {
    const int64_t beyond_h = (c->kernel_h - 1) * c->dilation_h, beyond_w = (c->kernel_w - 1) * c->dilation_w;
    int64_t top = c->pad_h, left = c->pad_w;
    int64_t span = (c->target_h - 1) * c->stride_h + beyond_h + 1;
    int64_t pitch = (c->target_w - 1) * c->stride_w + beyond_w + 1;
    if (c->turned) {
        top = larger(0, beyond_h - c->pad_h) / c->stride_h, left = larger(0, beyond_w - c->pad_w) / c->stride_w;
        span = top + (c->target_h - 1 + c->pad_h) / c->stride_h + 1;
        pitch = left + (c->target_w - 1 + c->pad_w) / c->stride_w + 1;
    }
    return lines_of(c->source, c->source_h, c->source_w, c->source_c, c->source_c / c->group, top, left, span, pitch);
}

/* The line that the first tap of a line of the target sees, counted over all samples. */
static int64_t conv_first_line(const conv_args *c, const Lines *l, int64_t line) {
    const int64_t y = line % c->target_h;
    return line / c->target_h * l->span + (c->turned ? y / c->stride_h : y * c->stride_h);
}

/* How many lines all taps of a line of the target see. */
static int64_t conv_reach(const conv_args *c, const Lines *l) {
    if (c->turned) return l->top + (c->stride_h - 1 + c->pad_h) / c->stride_h + 1;
    return (c->kernel_h - 1) * c->dilation_h + 1;
}

/* A part: some lines of a sample, in whole strides, or some samples where they are small. */

static int64_t conv_pieces(const conv_args *c) {
    const int64_t stride = c->turned ? c->stride_h : 1;
    return smaller(ceil_div(c->target_h * c->target_w, PART_PIXELS), ceil_div(c->target_h, stride));
}

static int64_t conv_samples_per_part(const conv_args *c) {
    const int64_t fit = PART_PIXELS / (c->target_h * c->target_w);
    return larger(1, smaller(fit, ceil_div(c->samples, EVEN)));
}

/* The first line of a part, over all samples; that of the next part is where it ends. */
static int64_t conv_part(const conv_args *c, int64_t part) {
    const int64_t pieces = conv_pieces(c), stride = c->turned ? c->stride_h : 1;
    if (pieces == 1) return smaller(c->samples, part * conv_samples_per_part(c)) * c->target_h;
    return part / pieces * c->target_h + ceil_div(c->target_h, stride) * (part % pieces) / pieces * stride;
}

static int64_t conv_own_work(const conv_args *c) {
    const Lines l = conv_lines(c);
    const int64_t pieces = conv_pieces(c), most = ceil_div(c->target_h, pieces) + c->stride_h;
    if (pieces == 1) return lines_work(&l, conv_samples_per_part(c) * l.span);
    return lines_work(&l, conv_first_line(c, &l, smaller(most, c->target_h) - 1) + conv_reach(c, &l));
}

static Demand conv_demand(const void *args) {
    const conv_args *c = args;
    const int64_t pieces = conv_pieces(c);
    return (Demand){pieces == 1 ? ceil_div(c->samples, conv_samples_per_part(c)) : c->samples * pieces,
                    conv_own_work(c)};
}

/* The pixels of the target that see the same taps: y = y0 + i * y_step and x = x0 + j * x_step. A tap lies `offset`
   floats behind pixel j * x_stride of line i * y_stride. */
typedef struct {
    int64_t y0, x0, y_step, x_step, y_stride, x_stride, taps, depth;
    int64_t line[MOST_TAPS], column[MOST_TAPS], offset[MOST_TAPS];
    int64_t row[MOST_TAPS]; /* of the weight */
} Lattice;

/* How many elements in a row of the kernel are taken as one tap: all of them where what they see lies together. */
static int64_t tap_run(const conv_args *c, const Lines *l) {
    return c->turned || c->dilation_w > 1 || l->step != c->source_c / c->group ? 1 : c->kernel_w;
}

/* The lattice of class (y, x), of which a forward convolution has only (0, 0), with `run` elements to a tap. */
static void find_lattice(const conv_args *c, const Lines *l, int64_t run, int64_t y, int64_t x, Lattice *out) {
    const int64_t depth = c->source_c / c->group;
    *out = c->turned ? (Lattice){y, x, c->stride_h, c->stride_w, 1, 1, 0, depth}
                     : (Lattice){0, 0, 1, 1, c->stride_h, c->stride_w, 0, run * depth};
    for (int64_t ky = 0; ky < c->kernel_h; ky++)
        for (int64_t kx = 0; kx < c->kernel_w; kx += run) {
            int64_t dy = ky * c->dilation_h - c->pad_h, dx = kx * c->dilation_w - c->pad_w;
            if (c->turned) {
                dy = y - dy, dx = x - dx;
                if (dy % c->stride_h || dx % c->stride_w) continue;
                dy /= c->stride_h, dx /= c->stride_w;
            }
            out->line[out->taps] = dy, out->column[out->taps] = dx;
            out->offset[out->taps] = ((dy + l->top) * l->pitch + dx + l->left) * l->step;
            out->row[out->taps++] = (ky * c->kernel_w + kx) * depth;
        }
}

/* Some lines of a lattice: `count` of `width` pixels from `first` on, counted over samples with `per_sample`. `from` is
   where line `from_line` of the source lies. */
typedef struct {
    const Lattice *lattice;
    const Lines *lines;
    const float *from;
    int64_t from_line, first, count, width, per_sample;
} Stretch;

/* Where the rows of a block read and write: `pixels` pixels from the given one on, and of the target the channels from
   `channel` on; rows beyond the pixels repeat the last. */
static void place_rows(const conv_args *c, const Stretch *s, int64_t pixel, int64_t pixels, int64_t channel, int rows,
                       const float **a, float **out) {
    const Lattice *l = s->lattice;
    const int64_t across = l->x_stride * s->lines->step, out_across = l->x_step * c->target_c;
    int64_t line = s->first + pixel / s->width, column = pixel % s->width;
    for (int r = 0; r < pixels; line++, column = 0) {
        const int64_t sample = line / s->per_sample, i = line % s->per_sample;
        const int64_t seen = sample * s->lines->span + i * l->y_stride - s->from_line;
        const int64_t y = sample * c->target_h + l->y0 + i * l->y_step, x = l->x0 + column * l->x_step;
        const float *from = s->from + seen * s->lines->pitch * s->lines->step + column * across;
        float *to = c->target + (y * c->target_w + x) * c->target_c + channel;
        for (; r < pixels && column < s->width; r++, column++, from += across, to += out_across) {
            a[r] = from;
            out[r] = to;
        }
    }
    for (int64_t r = pixels; r < rows; r++) a[r] = a[pixels - 1], out[r] = out[pixels - 1];
}

/* Leaves out the taps at the beginning and at the end that see nothing but zeros in some pixels of one sample. */
static void leave_out(const Stretch *s, int64_t pixel, int64_t pixels, RowBlock *t) {
    const Lattice *l = s->lattice;
    const int64_t first = s->first + pixel / s->width, last = s->first + (pixel + pixels - 1) / s->width;
    if (first / s->per_sample != last / s->per_sample) return;
    const int64_t top = first % s->per_sample * l->y_stride, bottom = last % s->per_sample * l->y_stride;
    int64_t from = 0, to = l->taps;
#define ZEROS(tap) (bottom + l->line[tap] < 0 || top + l->line[tap] >= s->lines->height)
    while (from < to && ZEROS(from)) from++;
    while (from < to && ZEROS(to - 1)) to--;
#undef ZEROS
    t->taps += from;
    t->b += from;
    t->count = to - from;
}

/* The rows of a packed weight. */
INLINE int64_t conv_depth(const conv_args *c) { return c->kernel_h * c->kernel_w * (c->source_c / c->group); }

/* All pixels of a lattice among the lines `first` to `stop` of the target. */
static void convolve(const conv_args *c, Stretch *s, int64_t first, int64_t stop) {
    const Lattice *lattice = s->lattice;
    const int64_t columns = c->target_c / c->group;
    s->per_sample = ceil_div(c->target_h - lattice->y0, lattice->y_step);
    s->width = ceil_div(c->target_w - lattice->x0, lattice->x_step);
    s->first = first / c->target_h * s->per_sample + first % c->target_h / lattice->y_step;
    s->count = stop / c->target_h * s->per_sample + stop % c->target_h / lattice->y_step - s->first;
    const float *a[MOST_ROWS], *b[MOST_TAPS];
    float *out[MOST_ROWS];
    for (int64_t column = 0; column < columns; column += panel_width(column, columns)) {
        const int64_t width = panel_width(column, columns);
        const int v = (int)(width / LANES), rows = ROWS(v);
        for (int64_t tap = 0; tap < lattice->taps; tap++)
            b[tap] = c->weight + column * conv_depth(c) + lattice->row[tap] * width;
        for (int64_t pixel = 0; pixel < s->count * s->width; pixel += rows) {
            const int64_t pixels = smaller(rows, s->count * s->width - pixel);
            place_rows(c, s, pixel, pixels, column, rows, a, out);
            RowBlock t = {a, lattice->offset, lattice->taps, lattice->depth, b, width, c->bias ? c->bias + column : NULL,
                          out, pixels, smaller(width, columns - column), 0};
            leave_out(s, pixel, pixels, &t);
            run_rows_block(&t, v);
        }
    }
}

/* The same for one group: a convolution of some channels of each pixel. */
static conv_args conv_group(const conv_args *whole, int64_t group) {
    conv_args c = *whole;
    c.source += group * (c.source_c / c.group);
    c.target += group * (c.target_c / c.group);
    c.weight += group * conv_depth(&c) * whole_vectors(c.target_c / c.group);
    if (c.bias) c.bias += group * (c.target_c / c.group);
    return c;
}

static void conv_run(const void *args, int64_t part, float *work) {
    const conv_args *c = args;
    const int64_t first = conv_part(c, part), stop = conv_part(c, part + 1);
    const int64_t y_classes = c->turned ? smaller(c->stride_h, c->target_h) : 1;
    const int64_t x_classes = c->turned ? smaller(c->stride_w, c->target_w) : 1;
    Lattice lattice;
    for (int64_t group = 0; group < c->group; group++) {
        const conv_args one = conv_group(c, group);
        const Lines lines = conv_lines(&one);
        Stretch s = {.lattice = &lattice, .lines = &lines, .from_line = conv_first_line(c, &lines, first)};
        const int64_t end = conv_first_line(c, &lines, stop - 1) + conv_reach(c, &lines);
        const int64_t sample_end = ((stop - 1) / c->target_h + 1) * lines.span;
        s.from = find_lines(&lines, s.from_line, smaller(end, sample_end), work);
        for (int64_t y = 0; y < y_classes; y++)
            for (int64_t x = 0; x < x_classes; x++) {
                find_lattice(&one, &lines, tap_run(&one, &lines), y, x, &lattice);
                convolve(&one, &s, first, stop);
            }
    }
}

static Range conv_covers(const void *args, int64_t part) {
    const conv_args *c = args;
    const int64_t first = conv_part(c, part), line = c->target_w * c->target_c;
    return (Range){first * line, (conv_part(c, part + 1) - first) * line};
}

/* conv_dweight: each part sums its samples into a total of its own, (part, tap, input channel, output channel). */
#define FIELDS_conv_dweight(A, W, L, C, I, F)                                                                  \
    A(x) A(dy) A(totals) I(parts) I(samples) I(group) I(x_h) I(x_w) I(x_c) I(y_h) I(y_w) I(y_c)                \
    I(kernel_h) I(kernel_w) I(stride_h) I(stride_w) I(pad_h) I(pad_w) I(dilation_h) I(dilation_w)
DECLARE(conv_dweight)

/* About how many floats of x and dy are worked on at a time; they stay in a core's cache. */
enum { CHUNK = 1 << 13, MOST_CHUNK = 1 << 15 };

/* The floats of a total. */
INLINE int64_t dweight_size(const conv_dweight_args *c) {
    return c->kernel_h * c->kernel_w * (c->x_c / c->group) * c->y_c;
}

/* Into how many chunks of lines a sample is cut: larger ones where the total is large, as it is read and written with
   each chunk. */
static int64_t dweight_chunks(const conv_dweight_args *c) {
    const int64_t per_line = c->y_w * c->y_c + c->stride_h * c->x_w * c->x_c;
    return smaller(c->y_h, ceil_div(c->y_h * per_line, larger(CHUNK, smaller(MOST_CHUNK, dweight_size(c) / 3))));
}

/* The input with the zeros that the taps need. */
static Lines dweight_lines(const conv_dweight_args *c) {
    const int64_t span = (c->y_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
    const int64_t pitch = (c->y_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
    return lines_of(c->x, c->x_h, c->x_w, c->x_c, c->x_c / c->group, c->pad_h, c->pad_w, span, pitch);
}

static Demand conv_dweight_demand(const void *args) {
    const conv_dweight_args *c = args;
    const Lines l = dweight_lines(c);
    const int64_t most = ceil_div(c->y_h, dweight_chunks(c));
    return (Demand){c->parts, lines_work(&l, (most - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1)};
}

/* Lines `first` to `stop` of an output, of which one element of the kernel sees the inside of the input. */
static void valid_range(int64_t inputs, int64_t stride, int64_t offset, int64_t *first, int64_t *stop) {
    *first = larger(*first, offset < 0 ? ceil_div(-offset, stride) : 0);
    *stop = smaller(*stop, offset >= inputs ? 0 : (inputs - 1 - offset) / stride + 1);
}

/* Lines `first` to `stop` of the output of one sample and group. */
static void dweight_of_lines(const conv_dweight_args *c, const Lines *l, int64_t sample, int64_t first, int64_t stop,
                             const float *dy, float *total, float *work) {
    const int64_t in = c->x_c / c->group, run = c->dilation_w > 1 || l->step != in ? 1 : c->kernel_w;
    const int64_t top = sample * l->span + first * c->stride_h;
    const int64_t lines = (stop - first - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
    const float *x = find_lines(l, top, top + lines, work);
    for (int64_t ky = 0; ky < c->kernel_h; ky++)
        for (int64_t kx = 0; kx < c->kernel_w; kx += run, total += run * in * c->y_c) {
            int64_t y0 = first, y1 = stop;
            valid_range(c->x_h, c->stride_h, ky * c->dilation_h - c->pad_h, &y0, &y1);
            if (y0 >= y1) continue;
            const int64_t line = (y0 - first) * c->stride_h + ky * c->dilation_h;
            ColumnBlock t = {
                .lines = y1 - y0, .depth = c->y_w,
                .a = x + (line * l->pitch + kx * c->dilation_w) * l->step,
                .a_line = c->stride_h * l->pitch * l->step, .step = c->stride_w * l->step,
                .b = dy + (sample * c->y_h + y0) * c->y_w * c->y_c, .b_line = c->y_w * c->y_c, .ldb = c->y_c,
                .out = total, .ldout = c->y_c, .rows = run * in, .columns = c->y_c / c->group,
            };
            run_columns(&t);
        }
}

static void conv_dweight_run(const void *args, int64_t part, float *work) {
    const conv_dweight_args *c = args;
    const int64_t in = c->x_c / c->group, out = c->y_c / c->group, size = dweight_size(c);
    const int64_t chunks = dweight_chunks(c);
    float *total = c->totals + part * size;
    clear_floats(total, size);
    for (int64_t n = c->samples * part / c->parts; n < c->samples * (part + 1) / c->parts; n++)
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            for (int64_t group = 0; group < c->group; group++) {
                Lines l = dweight_lines(c);
                l.image += group * in;
                dweight_of_lines(c, &l, n, c->y_h * chunk / chunks, c->y_h * (chunk + 1) / chunks, c->dy + group * out,
                                 total + group * out, work);
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
    const int64_t stop = smaller(g->size, (part + 1) * GATHERED);
    for (int64_t i = part * GATHERED; i < stop; i += LANES) {
        const int64_t some = smaller(LANES, stop - i);
        vec sum = load_some(g->totals + i, some);
        for (int64_t n = 1; n < g->count; n++) sum += load_some(g->totals + n * g->size + i, some);
        if (g->add) sum += load_some(g->out + i, some);
        store_some(g->out + i, sum, some);
    }
}
