/* Scores (outer, classes, inner) with a class for each position (outer, inner): what is looked up at the class, and what
   goes back to the scores. Where `inner` is 1, a vector holds classes of a position; otherwise it holds positions. */

/* `weights` are one for each class, or NULL where all are 1. bad: for each part whether there is a label that is no
   class, and the first of them. */
#define FIELDS_label_weights(A, W, L, C, I, F)                                                                 \
    W(label) A(weights) A(out) W(bad) I(size) I(classes) I(ignores) I(ignore) I(parts)
DECLARE(label_weights)

static Demand label_weights_demand(const void *args) { return (Demand){((const label_weights_args *)args)->parts, 0}; }

static void label_weights_run(const void *args, int64_t part, float *work) {
    const label_weights_args *p = args;
    int32_t *bad = p->bad + 2 * part;
    bad[0] = 0;
    for (int64_t i = p->size * part / p->parts; i < p->size * (part + 1) / p->parts; i++) {
        const int32_t label = p->label[i];
        p->out[i] = 0;
        if (p->ignores && label == p->ignore) continue;
        if (label >= 0 && label < p->classes)
            p->out[i] = p->weights ? p->weights[label] : 1;
        else if (!bad[0])
            bad[0] = 1, bad[1] = label;
    }
}

/* out = x at the label, and 1 where that is no class. */
#define FIELDS_pick(A, W, L, C, I, F) A(x) W(label) A(out) I(outer) I(classes) I(inner) I(parts)
DECLARE(pick)

static Demand pick_demand(const void *args) { return (Demand){((const pick_args *)args)->parts, 0}; }

static void pick_run(const void *args, int64_t part, float *work) {
    const pick_args *p = args;
    const int64_t size = p->outer * p->inner;
    for (int64_t i = size * part / p->parts; i < size * (part + 1) / p->parts; i++) {
        const int64_t label = p->label[i], first = i / p->inner * p->classes * p->inner + i % p->inner;
        p->out[i] = label >= 0 && label < p->classes ? p->x[first + label * p->inner] : 1;
    }
}

/* out = sum(weight log prob) over the classes. label_slope: dx = own (prob - one at the label) + every (prob total -
   weight), where `every` may be NULL, and total is the sum of the weights. */
#define FIELDS_label_slope(A, W, L, C, I, F)                                                                   \
    A(prob) W(label) A(own) A(every) A(weights) F(total) A(out) I(outer) I(classes) I(inner) I(parts)
DECLARE(label_slope)

static Demand label_slope_demand(const void *args) { return (Demand){((const label_slope_args *)args)->parts, 0}; }

INLINE float weight_of(const label_slope_args *p, int64_t c) { return p->weights ? p->weights[c] : 1; }
INLINE vec weights_from(const label_slope_args *p, int64_t c, int64_t some) {
    return p->weights ? load_some(p->weights + c, some) : splat(1);
}
INLINE vec log_of_prob(vec prob) { return vlog(vmaximum(prob, splat(1.17549435e-38f))); }

INLINE int64_t place_of(int64_t at, int64_t classes, int64_t inner) {
    return at / (classes * inner) * inner + at % inner;
}

static void log_total_row(const label_slope_args *p, int64_t at) {
    const float *prob = p->prob + at;
    vec sums[4] = {splat(0), splat(0), splat(0), splat(0)}; /* side by side, for a logarithm takes long */
    int64_t c = 0;
    for (; c + 4 * LANES <= p->classes; c += 4 * LANES)
        UNROLL for (int j = 0; j < 4; j++)
            sums[j] += weights_from(p, c + j * LANES, LANES) * log_of_prob(load(prob + c + j * LANES));
    for (; c < p->classes; c += LANES) {
        const int64_t some = smaller(LANES, p->classes - c);
        sums[0] += padded(weights_from(p, c, some) * log_of_prob(load_some(prob + c, some)), some, 0);
    }
    p->out[at / p->classes] = sum_of_lanes(sums[0] + sums[1] + (sums[2] + sums[3]));
}

static void log_total_column(const label_slope_args *p, int64_t at, int64_t some) {
    vec sum = splat(0);
    for (int64_t c = 0; c < p->classes; c++)
        sum += weight_of(p, c) * log_of_prob(load_some(p->prob + at + c * p->inner, some));
    store_some(p->out + place_of(at, p->classes, p->inner), sum, some);
}

static void log_total_run(const void *args, int64_t part, float *work) {
    const label_slope_args *p = args;
    EACH_LINE(log_total_row, log_total_column)
}

static void label_slope_row(const label_slope_args *p, int64_t at) {
    const int64_t position = at / p->classes;
    const float own = p->own[position], every = p->every ? p->every[position] : 0;
    const float factor = own + every * (float)p->total;
    for (int64_t c = 0; c < p->classes; c += LANES) {
        const int64_t some = smaller(LANES, p->classes - c);
        store_some(p->out + at + c, load_some(p->prob + at + c, some) * factor - every * weights_from(p, c, some), some);
    }
    const int64_t label = p->label[position];
    if (label < 0 || label >= p->classes) return;
    const float prob = p->prob[at + label];
    p->out[at + label] = own * (prob - 1) + every * (prob * (float)p->total - weight_of(p, label));
}

static void label_slope_column(const label_slope_args *p, int64_t at, int64_t some) {
    const int64_t position = place_of(at, p->classes, p->inner);
    const vec own = load_some(p->own + position, some), every = p->every ? load_some(p->every + position, some) : splat(0);
    ivec label = {0};
    for (int64_t i = 0; i < some; i++) label[i] = p->label[position + i];
    for (int32_t c = 0; c < p->classes; c++) {
        const vec prob = load_some(p->prob + at + c * p->inner, some);
        const vec slope = own * (prob - truth(label == c)) + every * (prob * (float)p->total - weight_of(p, c));
        store_some(p->out + at + c * p->inner, slope, some);
    }
}

static void label_slope_run(const void *args, int64_t part, float *work) {
    const label_slope_args *p = args;
    EACH_LINE(label_slope_row, label_slope_column)
}

/* label_rows: out = own times the row of `table` (classes, classes) at the label, or, where that is NULL, times a one at
   the label; 0 where a label is no class. */
#define FIELDS_label_rows(A, W, L, C, I, F) W(label) A(own) A(table) A(out) I(outer) I(classes) I(inner) I(parts)
DECLARE(label_rows)

static Demand label_rows_demand(const void *args) { return (Demand){((const label_rows_args *)args)->parts, 0}; }

static void label_rows_row(const label_rows_args *p, int64_t at) {
    const int64_t position = at / p->classes, label = p->label[position];
    const float own = p->own[position];
    float *out = p->out + at;
    if (label < 0 || label >= p->classes || !p->table) clear_floats(out, p->classes);
    if (label < 0 || label >= p->classes) return;
    if (!p->table) {
        out[label] = own;
        return;
    }
    const float *row = p->table + label * p->classes;
    EACH_VECTOR(p->classes, { store_some(out + i, own * load_some(row + i, some), some); })
}

static void label_rows_column(const label_rows_args *p, int64_t at, int64_t some) {
    const int64_t position = place_of(at, p->classes, p->inner);
    const vec own = load_some(p->own + position, some);
    ivec label = {0};
    for (int64_t i = 0; i < some; i++) label[i] = p->label[position + i];
    for (int32_t c = 0; c < p->classes; c++) {
        vec row = choose(label == c, own, splat(0));
        for (int64_t i = 0; p->table && i < some; i++)
            row[i] = label[i] >= 0 && label[i] < p->classes ? own[i] * p->table[label[i] * p->classes + c] : 0;
        store_some(p->out + at + c * p->inner, row, some);
    }
}

static void label_rows_run(const void *args, int64_t part, float *work) {
    const label_rows_args *p = args;
    EACH_LINE(label_rows_row, label_rows_column)
}
