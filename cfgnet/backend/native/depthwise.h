/* Convolution of each channel by itself, and its gradients: as in convolution.h, but what is summed over is the taps
   only, and the lanes of a vector are channels all along. The weight is (tap, channel), as it lies, in one group.

   With so little to compute for each element, zeros around the image are not worth copying: at its edges there are
   fewer taps. */

#define FIELDS_depthwise FIELDS_conv
DECLARE(depthwise)

enum { DEPTHWISE_MOST = 9, DEPTHWISE_PART = 1 << 14 };

/* A part is some lines of the target, over all samples. */

static Demand depthwise_demand(const void *args) {
    const conv_args *c = args;
    const int64_t lines = c->samples * c->target_h;
    return (Demand){larger(1, smaller(lines, lines * c->target_w * c->target_c / DEPTHWISE_PART)), 0};
}

INLINE int64_t depthwise_part(const conv_args *c, int64_t part) {
    return c->samples * c->target_h * part / depthwise_demand(c).parts;
}

static Range depthwise_covers(const void *args, int64_t part) {
    const conv_args *c = args;
    const int64_t first = depthwise_part(c, part), line = c->target_w * c->target_c;
    return (Range){first * line, (depthwise_part(c, part + 1) - first) * line};
}

/* Pixels `across` from one another in a line, and the taps that all of them see. */
typedef struct {
    const float *from, *start;
    float *to;
    int64_t from_across, to_across, channels, taps;
    const int64_t *offset;
    const float *const *weight;
} Pixels;

INLINE void depthwise_vector(const Pixels *p, int64_t channel, int64_t n, const int pixels) {
    vec sums[DEPTHWISE_MOST];
    const vec start = p->start ? load_some(p->start + channel, n) : splat(0);
    UNROLL for (int i = 0; i < pixels; i++) sums[i] = start;
    for (int64_t tap = 0; tap < p->taps; tap++) {
        const vec weight = load_some(p->weight[tap] + channel, n);
        const float *from = p->from + p->offset[tap] + channel;
        UNROLL for (int i = 0; i < pixels; i++, from += p->from_across) sums[i] += weight * load_some(from, n);
    }
    float *to = p->to + channel;
    UNROLL for (int i = 0; i < pixels; i++, to += p->to_across) store_some(to, sums[i], n);
}

#define PIXELS_FUNCTION(pixels, v)                                                                             \
    static void depthwise_pixels_##pixels(const Pixels *p) {                                                   \
        int64_t channel = 0;                                                                                   \
        for (; channel + LANES <= p->channels; channel += LANES) depthwise_vector(p, channel, LANES, pixels);  \
        if (channel < p->channels) depthwise_vector(p, channel, p->channels - channel, pixels);                \
    }
#define PIXELS_ENTRY(pixels, v) [pixels] = depthwise_pixels_##pixels,
UP_TO_9(PIXELS_FUNCTION, 1)
static void (*const DEPTHWISE_PIXELS[DEPTHWISE_MOST + 1])(const Pixels *) = {UP_TO_9(PIXELS_ENTRY, 1)};

/* The pixels from `first` to `stop` of a line, which see all of its taps. */
static void depthwise_inside(const Pixels *line, int64_t first, int64_t stop) {
    const int64_t blocks = ceil_div(stop - first, DEPTHWISE_MOST);
    Pixels p = *line;
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t pixel = first + (stop - first) * block / blocks;
        p.from = line->from + pixel * p.from_across, p.to = line->to + pixel * p.to_across;
        DEPTHWISE_PIXELS[first + (stop - first) * (block + 1) / blocks - pixel](&p);
    }
}

/* Those from `first` to `stop`, x_stride apart in the source, each with the taps, at the given columns, that see one of
   its `width` pixels. */
static void depthwise_edge(const Pixels *line, const int64_t *column, int64_t x_stride, int64_t width, int64_t first,
                           int64_t stop) {
    int64_t offset[MOST_TAPS];
    const float *weight[MOST_TAPS];
    Pixels p = *line;
    p.offset = offset, p.weight = weight;
    for (int64_t pixel = first; pixel < stop; pixel++) {
        p.from = line->from + pixel * p.from_across, p.to = line->to + pixel * p.to_across, p.taps = 0;
        for (int64_t tap = 0; tap < line->taps; tap++)
            if ((uint64_t)(pixel * x_stride + column[tap]) < (uint64_t)width) {
                offset[p.taps] = line->offset[tap];
                weight[p.taps++] = line->weight[tap];
            }
        DEPTHWISE_PIXELS[1](&p);
    }
}

/* Line i of a lattice in a sample. */
static void depthwise_line(const conv_args *c, const Lattice *l, int64_t sample, int64_t i) {
    const int64_t line = i * l->y_stride, width = ceil_div(c->target_w - l->x0, l->x_step);
    int64_t column[MOST_TAPS], offset[MOST_TAPS], first = 0, stop = width;
    const float *weight[MOST_TAPS];
    Pixels p = {
        .from = c->source + (sample * c->source_h + line) * c->source_w * c->source_c, .start = c->bias,
        .to = c->target + ((sample * c->target_h + l->y0 + i * l->y_step) * c->target_w + l->x0) * c->target_c,
        .from_across = l->x_stride * c->source_c, .to_across = l->x_step * c->target_c, .channels = c->target_c,
        .offset = offset, .weight = weight,
    };
    for (int64_t tap = 0; tap < l->taps; tap++) {
        if ((uint64_t)(line + l->line[tap]) >= (uint64_t)c->source_h) continue;
        const int64_t at = column[p.taps] = l->column[tap];
        offset[p.taps] = l->offset[tap];
        weight[p.taps++] = c->weight + l->row[tap];
        first = larger(first, at < 0 ? ceil_div(-at, l->x_stride) : 0);
        stop = smaller(stop, at >= c->source_w ? 0 : (c->source_w - 1 - at) / l->x_stride + 1);
    }
    first = smaller(first, width), stop = larger(first, stop);
    depthwise_edge(&p, column, l->x_stride, c->source_w, 0, first);
    depthwise_inside(&p, first, stop);
    depthwise_edge(&p, column, l->x_stride, c->source_w, stop, width);
}

static void depthwise_run(const void *args, int64_t part, float *work) {
    const conv_args *c = args;
    const int64_t first = depthwise_part(c, part), stop = depthwise_part(c, part + 1);
    const int64_t y_classes = c->turned ? smaller(c->stride_h, c->target_h) : 1;
    const int64_t x_classes = c->turned ? smaller(c->stride_w, c->target_w) : 1;
    const Lines image = lines_of(c->source, c->source_h, c->source_w, c->source_c, c->source_c, 0, 0, 0, 0);
    Lattice l;
    for (int64_t y = 0; y < y_classes; y++)
        for (int64_t x = 0; x < x_classes; x++) {
            find_lattice(c, &image, 1, y, x, &l);
            for (int64_t line = first; line < stop; line++)
                if (line % c->target_h % y_classes == y)
                    depthwise_line(c, &l, line / c->target_h, line % c->target_h / y_classes);
        }
}

/* The gradient of some taps of the weight, over some lines. */
typedef struct {
    int64_t lines, width;
    const float *x; /* x[line * x_line + pixel * x_step + offset[tap] + channel] */
    int64_t x_line, x_step;
    const float *dy; /* dy[line * dy_line + pixel * channels + channel] */
    int64_t dy_line, channels;
    const int64_t *offset;
    float *out; /* (tap, channel), which is added to */
} TapSums;

INLINE void depthwise_taps(const TapSums *t, int64_t channel, int64_t n, const int taps) {
    vec sums[DEPTHWISE_MOST];
    UNROLL for (int i = 0; i < taps; i++) sums[i] = load_some(t->out + i * t->channels + channel, n);
    for (int64_t line = 0; line < t->lines; line++) {
        const float *x = t->x + line * t->x_line + channel, *dy = t->dy + line * t->dy_line + channel;
        for (int64_t pixel = 0; pixel < t->width; pixel++, x += t->x_step, dy += t->channels) {
            const vec up = load_some(dy, n);
            UNROLL for (int i = 0; i < taps; i++) sums[i] += up * load_some(x + t->offset[i], n);
        }
    }
    UNROLL for (int i = 0; i < taps; i++) store_some(t->out + i * t->channels + channel, sums[i], n);
}

#define TAPS_FUNCTION(taps, v)                                                                                 \
    static void depthwise_taps_##taps(const TapSums *t) {                                                      \
        int64_t channel = 0;                                                                                   \
        for (; channel + LANES <= t->channels; channel += LANES) depthwise_taps(t, channel, LANES, taps);      \
        if (channel < t->channels) depthwise_taps(t, channel, t->channels - channel, taps);                    \
    }
#define TAPS_ENTRY(taps, v) [taps] = depthwise_taps_##taps,
UP_TO_9(TAPS_FUNCTION, 1)
static void (*const DEPTHWISE_SUMS[DEPTHWISE_MOST + 1])(const TapSums *) = {UP_TO_9(TAPS_ENTRY, 1)};

/* As conv_dweight: each part sums its samples into a total of its own, (part, tap, channel). */
#define FIELDS_depthwise_dweight FIELDS_conv_dweight
DECLARE(depthwise_dweight)

/* Into how many chunks of lines a sample is cut. */
static int64_t depthwise_chunks(const conv_dweight_args *c) {
    const int64_t per_line = c->y_w * c->y_c + c->stride_h * c->x_w * c->x_c;
    return smaller(c->y_h, ceil_div(c->y_h * per_line, MOST_CHUNK));
}

static Demand depthwise_dweight_demand(const void *args) {
    const conv_dweight_args *c = args;
    const Lines l = dweight_lines(c);
    const int64_t most = ceil_div(c->y_h, depthwise_chunks(c));
    return (Demand){c->parts, lines_work(&l, (most - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1)};
}

static void depthwise_dweight_run(const void *args, int64_t part, float *work) {
    const conv_dweight_args *c = args;
    const int64_t channels = c->x_c, taps = c->kernel_h * c->kernel_w, chunks = depthwise_chunks(c);
    const Lines l = dweight_lines(c);
    float *total = c->totals + part * taps * channels;
    clear_floats(total, taps * channels);
    int64_t offset[MOST_TAPS];
    for (int64_t tap = 0; tap < taps; tap++) {
        const int64_t line = tap / c->kernel_w * c->dilation_h, pixel = tap % c->kernel_w * c->dilation_w;
        offset[tap] = (line * l.pitch + pixel) * l.step;
    }
    const int64_t blocks = ceil_div(taps, DEPTHWISE_MOST);
    for (int64_t n = c->samples * part / c->parts; n < c->samples * (part + 1) / c->parts; n++)
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const int64_t first = c->y_h * chunk / chunks, lines = c->y_h * (chunk + 1) / chunks - first;
            const int64_t top = n * l.span + first * c->stride_h;
            const int64_t seen = (lines - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
            TapSums t = {
                .lines = lines, .width = c->y_w, .channels = channels,
                .x = find_lines(&l, top, top + seen, work),
                .x_line = c->stride_h * l.pitch * l.step, .x_step = c->stride_w * l.step,
                .dy = c->dy + (n * c->y_h + first) * c->y_w * channels, .dy_line = c->y_w * channels,
            };
            for (int64_t block = 0; block < blocks; block++) {
                const int64_t tap = taps * block / blocks;
                t.offset = offset + tap, t.out = total + tap * channels;
                DEPTHWISE_SUMS[taps * (block + 1) / blocks - tap](&t);
            }
        }
}
