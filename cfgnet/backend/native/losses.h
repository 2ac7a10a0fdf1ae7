/* Softmax, its logarithm, and cross-entropy, over arrays (outer, classes, inner). Where `inner` is 1, a row of classes
   lies in one piece and is worked on by vectors of classes; otherwise a vector holds positions, and a class is `inner`
   floats further. */

#define FIELDS_softmax(A, W, L, C, I, F) A(x) A(y) A(dy) A(dx) I(outer) I(classes) I(inner) I(parts)
DECLARE(softmax)

static Demand softmax_demand(const void *args) { return (Demand){((const softmax_args *)args)->parts, 0}; }

/* Which are the first n lanes. */
INLINE ivec lanes_before(int64_t n) {
    ivec lane;
    UNROLL for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane < (int32_t)n;
}

/* The first n lanes of a vector, and something else in the others. */
INLINE vec padded(vec v, int64_t n, float rest) { return choose(lanes_before(n), v, splat(rest)); }

INLINE float largest_lane(vec v) {
    UNROLL for (int width = LANES; width > 1; width /= 2) v = vmaximum(zip_low(v, v), zip_high(v, v));
    return v[0];
}

/* Runs ROW(at) for each row of a part, or COLUMN(at, some) for each of its vectors of positions; both begin at `at`. */
#define EACH_LINE(ROW, COLUMN)                                                                                 \
    const int64_t across = ceil_div(p->inner, LANES), lines = p->outer * across;                               \
    for (int64_t line = lines * part / p->parts; line < lines * (part + 1) / p->parts; line++) {               \
        const int64_t place = line % across * LANES, at = line / across * p->classes * p->inner + place;       \
        if (p->inner == 1)                                                                                     \
            ROW(p, at);                                                                                        \
        else                                                                                                   \
            COLUMN(p, at, smaller(LANES, p->inner - place));                                                   \
    }

INLINE float largest_of_row(const softmax_args *p, const float *x) {
    const float least = -__builtin_inff();
    vec most = splat(least);
    EACH_VECTOR(p->classes, { most = vmaximum(most, padded(load_some(x + i, some), some, least)); })
    return largest_lane(most);
}

INLINE vec largest_of_column(const softmax_args *p, const float *x, int64_t some) {
    vec most = load_some(x, some);
    for (int64_t c = 1; c < p->classes; c++) most = vmaximum(most, load_some(x + c * p->inner, some));
    return most;
}

static void softmax_row(const softmax_args *p, int64_t at) {
    const float *x = p->x + at, top = largest_of_row(p, x);
    float *y = p->y + at;
    vec sum = splat(0);
    EACH_VECTOR(p->classes, {
        const vec e = padded(vexp(load_some(x + i, some) - top), some, 0);
        store_some(y + i, e, some);
        sum += e;
    })
    const float share = 1 / sum_of_lanes(sum); /* a product takes a fraction of the time of a quotient */
    EACH_VECTOR(p->classes, { store_some(y + i, load_some(y + i, some) * share, some); })
}

static void softmax_column(const softmax_args *p, int64_t at, int64_t some) {
    const int64_t stop = at + p->classes * p->inner;
    const vec most = largest_of_column(p, p->x + at, some);
    vec sum = splat(0);
    for (int64_t c = at; c < stop; c += p->inner) {
        const vec e = vexp(load_some(p->x + c, some) - most);
        store_some(p->y + c, e, some);
        sum += e;
    }
    const vec share = 1 / sum;
    for (int64_t c = at; c < stop; c += p->inner) store_some(p->y + c, load_some(p->y + c, some) * share, some);
}

static void softmax_run(const void *args, int64_t part, float *work) {
    const softmax_args *p = args;
    EACH_LINE(softmax_row, softmax_column)
}

static void softmax_dx_row(const softmax_args *p, int64_t at) {
    const float *y = p->y + at, *dy = p->dy + at;
    vec sum = splat(0);
    EACH_VECTOR(p->classes, { sum += load_some(dy + i, some) * load_some(y + i, some); })
    const float total = sum_of_lanes(sum);
    EACH_VECTOR(p->classes, {
        store_some(p->dx + at + i, load_some(y + i, some) * (load_some(dy + i, some) - total), some);
    })
}

static void softmax_dx_column(const softmax_args *p, int64_t at, int64_t some) {
    const int64_t stop = at + p->classes * p->inner;
    vec sum = splat(0);
    for (int64_t c = at; c < stop; c += p->inner) sum += load_some(p->dy + c, some) * load_some(p->y + c, some);
    for (int64_t c = at; c < stop; c += p->inner)
        store_some(p->dx + c, load_some(p->y + c, some) * (load_some(p->dy + c, some) - sum), some);
}

static void softmax_dx_run(const void *args, int64_t part, float *work) {
    const softmax_args *p = args;
    EACH_LINE(softmax_dx_row, softmax_dx_column)
}

static void log_softmax_row(const softmax_args *p, int64_t at) {
    const float *x = p->x + at, top = largest_of_row(p, x);
    float *y = p->y + at;
    vec sum = splat(0);
    for (int64_t c = 0; c < p->classes; c += LANES) {
        const int64_t some = smaller(LANES, p->classes - c);
        sum += padded(vexp(load_some(x + c, some) - top), some, 0);
    }
    const float log = vlog(splat(sum_of_lanes(sum)))[0];
    for (int64_t c = 0; c < p->classes; c += LANES) {
        const int64_t some = smaller(LANES, p->classes - c);
        store_some(y + c, load_some(x + c, some) - top - log, some);
    }
}

static void log_softmax_column(const softmax_args *p, int64_t at, int64_t some) {
    const int64_t stop = at + p->classes * p->inner;
    const vec most = largest_of_column(p, p->x + at, some);
    vec sum = splat(0);
    for (int64_t c = at; c < stop; c += p->inner) sum += vexp(load_some(p->x + c, some) - most);
    const vec log = vlog(sum);
    for (int64_t c = at; c < stop; c += p->inner) store_some(p->y + c, load_some(p->x + c, some) - most - log, some);
}

static void log_softmax_run(const void *args, int64_t part, float *work) {
    const softmax_args *p = args;
    EACH_LINE(log_softmax_row, log_softmax_column)
}

static void log_softmax_dx_row(const softmax_args *p, int64_t at) {
    vec sum = splat(0);
    for (int64_t c = 0; c < p->classes; c += LANES) {
        const int64_t some = smaller(LANES, p->classes - c);
        sum += load_some(p->dy + at + c, some);
    }
    const float total = sum_of_lanes(sum);
    for (int64_t c = 0; c < p->classes; c += LANES) {
        const int64_t some = smaller(LANES, p->classes - c);
        const vec share = vexp(load_some(p->y + at + c, some)) * total;
        store_some(p->dx + at + c, load_some(p->dy + at + c, some) - share, some);
    }
}

static void log_softmax_dx_column(const softmax_args *p, int64_t at, int64_t some) {
    const int64_t stop = at + p->classes * p->inner;
    vec sum = splat(0);
    for (int64_t c = at; c < stop; c += p->inner) sum += load_some(p->dy + c, some);
    for (int64_t c = at; c < stop; c += p->inner)
        store_some(p->dx + c, load_some(p->dy + c, some) - vexp(load_some(p->y + c, some)) * sum, some);
}

static void log_softmax_dx_run(const void *args, int64_t part, float *work) {
    const softmax_args *p = args;
    EACH_LINE(log_softmax_dx_row, log_softmax_dx_column)
}

/* n = the number of labels that are not `ignore`, or 1 if there is none. */
#define FIELDS_count_labels(A, W, L, C, I, F) W(label) A(n) I(size) I(ignore)
DECLARE(count_labels)

static Demand count_labels_demand(const void *args) { return (Demand){1, 0}; }

static void count_labels_run(const void *args, int64_t part, float *work) {
    const count_labels_args *p = args;
    int64_t count = 0;
    for (int64_t i = 0; i < p->size; i++) count += p->label[i] != p->ignore;
    *p->n = (float)larger(1, count);
}

/* label: (outer, inner). With `ignores`, labels `ignore` do not count. totals: for each part its share of the loss. bad:
   for each part whether there is a label that is no class, and the first of them. */
#define FIELDS_cross_entropy(A, W, L, C, I, F)                                                                 \
    A(prob) W(label) A(n) A(totals) W(bad) A(dloss) A(dx) I(outer) I(classes) I(inner) I(ignores) I(ignore) I(parts)
DECLARE(cross_entropy)

static Demand cross_entropy_demand(const void *args) { return (Demand){((const cross_entropy_args *)args)->parts, 0}; }

INLINE int counts(const cross_entropy_args *p, int32_t label) { return !p->ignores || label != p->ignore; }
INLINE int is_class(const cross_entropy_args *p, int32_t label) { return label >= 0 && label < p->classes; }

/* The probability of the label of a position; 1 where it does not count, whose logarithm is 0. */
INLINE float picked(const cross_entropy_args *p, int64_t place, int32_t *bad) {
    const int32_t label = p->label[place];
    if (!counts(p, label)) return 1;
    if (is_class(p, label)) return p->prob[(place / p->inner * p->classes + label) * p->inner + place % p->inner];
    if (!bad[0]) bad[0] = 1, bad[1] = label;
    return 1;
}

static void cross_entropy_run(const void *args, int64_t part, float *work) {
    const cross_entropy_args *p = args;
    const int64_t places = p->outer * p->inner, stop = places * (part + 1) / p->parts;
    int32_t *bad = p->bad + 2 * part;
    vec sum = splat(0);
    bad[0] = 0;
    for (int64_t place = places * part / p->parts; place < stop; place += LANES) {
        vec prob = splat(1);
        for (int64_t i = 0; i < smaller(LANES, stop - place); i++) prob[i] = picked(p, place + i, bad);
        sum -= vlog(vmaximum(prob, splat(1.17549435e-38f)));
    }
    p->totals[part] = sum_of_lanes(sum) / *p->n;
}

static void cross_entropy_dx_row(const cross_entropy_args *p, int64_t at) {
    const int32_t label = p->label[at / p->classes];
    const float share = counts(p, label) ? *p->dloss / *p->n : 0;
    const float own = is_class(p, label) ? (p->prob[at + label] - 1) * share : 0;
    EACH_VECTOR(p->classes, { store_some(p->dx + at + i, load_some(p->prob + at + i, some) * share, some); })
    if (is_class(p, label)) p->dx[at + label] = own;
}

static void cross_entropy_dx_column(const cross_entropy_args *p, int64_t at, int64_t some) {
    const int32_t *labels = p->label + at / (p->classes * p->inner) * p->inner + at % p->inner;
    vec share = splat(0);
    ivec label = {0};
    for (int64_t i = 0; i < some; i++) {
        label[i] = labels[i];
        share[i] = counts(p, labels[i]) ? *p->dloss / *p->n : 0;
    }
    for (int32_t c = 0; c < p->classes; c++) {
        const int64_t to = at + c * p->inner;
        store_some(p->dx + to, (load_some(p->prob + to, some) - truth(label == c)) * share, some);
    }
}

static void cross_entropy_dx_run(const void *args, int64_t part, float *work) {
    const cross_entropy_args *p = args;
    EACH_LINE(cross_entropy_dx_row, cross_entropy_dx_column)
}
