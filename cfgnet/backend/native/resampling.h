/* resample: images (samples, height, width, channels) whose lines are weighted sums of lines, and in these the pixels
   weighted sums of pixels. Of line i, the terms are h_at[t] and h_weight[t] for h_first[i] <= t < h_first[i + 1];
   pixels likewise. */

#define FIELDS_resample(A, W, L, C, I, F)                                                                      \
    A(x) A(y) W(h_first) W(h_at) A(h_weight) W(w_first) W(w_at) A(w_weight)                                    \
    I(samples) I(channels) I(x_h) I(x_w) I(y_h) I(y_w) I(parts)
DECLARE(resample)

static Demand resample_demand(const void *args) {
    const resample_args *p = args;
    return (Demand){p->parts, whole_vectors(p->x_w * p->channels)};
}

/* The first line of a part, over all samples. */
INLINE int64_t resample_part(const resample_args *p, int64_t part) { return p->samples * p->y_h * part / p->parts; }

enum { FEW_TERMS = 4 };

/* out = the weighted sum of a few pieces of `size` floats, which lie at[t] * size behind `from`; with `add`, more of
   it. */
INLINE void blend_few(const float *from, const int32_t *at, const float *weight, const int terms, int64_t size, int add,
                      float *out) {
    const float *piece[FEW_TERMS];
    vec factor[FEW_TERMS];
    UNROLL for (int t = 0; t < terms; t++) {
        piece[t] = from + at[t] * size;
        factor[t] = splat(weight[t]);
    }
    for (int64_t i = 0; i < size; i += LANES) {
        const int64_t n = smaller(LANES, size - i);
        vec sum = add ? load_some(out + i, n) : splat(0);
        UNROLL for (int t = 0; t < terms; t++) sum += load_some(piece[t] + i, n) * factor[t];
        store_some(out + i, sum, n);
    }
}

/* The same of any number of pieces: a few at a time, and code of its own for as few as interpolation has. */
static void blend(const float *from, const int32_t *at, const float *weight, int64_t terms, int64_t size, float *out) {
    int64_t t = 0;
    if (!terms) clear_floats(out, size);
    for (; t + FEW_TERMS <= terms; t += FEW_TERMS) blend_few(from, at + t, weight + t, FEW_TERMS, size, t > 0, out);
    switch (terms - t) {
    case 1: blend_few(from, at + t, weight + t, 1, size, t > 0, out); break;
    case 2: blend_few(from, at + t, weight + t, 2, size, t > 0, out); break;
    case 3: blend_few(from, at + t, weight + t, 3, size, t > 0, out); break;
    }
}

/* Where the weighted sum of some lines of a sample lies: in `work`, unless it is one line as it is. */
static const float *blended_line(const resample_args *p, const float *x, int64_t line, float *work) {
    const int64_t first = p->h_first[line], terms = p->h_first[line + 1] - first, size = p->x_w * p->channels;
    if (terms == 1 && p->h_weight[first] == 1) return x + p->h_at[first] * size;
    blend(x, p->h_at + first, p->h_weight + first, terms, size, work);
    return work;
}

static void resample_run(const void *args, int64_t part, float *work) {
    const resample_args *p = args;
    float *y = p->y + resample_part(p, part) * p->y_w * p->channels;
    for (int64_t line = resample_part(p, part); line < resample_part(p, part + 1); line++) {
        const float *x = p->x + line / p->y_h * p->x_h * p->x_w * p->channels;
        const float *from = blended_line(p, x, line % p->y_h, work);
        for (int64_t pixel = 0; pixel < p->y_w; pixel++, y += p->channels) {
            const int64_t first = p->w_first[pixel], terms = p->w_first[pixel + 1] - first;
            blend(from, p->w_at + first, p->w_weight + first, terms, p->channels, y);
        }
    }
}

static Range resample_covers(const void *args, int64_t part) {
    const resample_args *p = args;
    const int64_t first = resample_part(p, part), line = p->y_w * p->channels;
    return (Range){first * line, (resample_part(p, part + 1) - first) * line};
}
