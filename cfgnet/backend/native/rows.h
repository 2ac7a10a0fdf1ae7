/* Rows of numbers: brought to mean 0 and variance 1, taken by index, and summed by index. */

/* normalize: normal (rows, columns) = (x - mean) * inverse, inverse = 1 / sqrt(var + eps) for each row; without `centred`
   the mean is left alone, and var is that of the squares. The variance is summed around the mean, in a second pass over
   the row while it is in the cache: a difference of large sums would lose what matters. */

#define FIELDS_normalize(A, W, L, C, I, F)                                                                     \
    A(x) A(normal) A(inverse) A(dy) A(dx) I(rows) I(columns) I(centred) I(parts) F(eps)
DECLARE(normalize)

static Demand normalize_demand(const void *args) { return (Demand){((const normalize_args *)args)->parts, 0}; }

INLINE Range normalize_rows(const normalize_args *p, int64_t part) {
    const int64_t first = p->rows * part / p->parts;
    return (Range){first, p->rows * (part + 1) / p->parts - first};
}

static Range normalize_covers(const void *args, int64_t part) {
    const normalize_args *p = args;
    const Range own = normalize_rows(p, part);
    return (Range){own.first * p->columns, own.count * p->columns};
}

/* The sum of (x - away) * (y - away) over a row, or of x where y is NULL; a few sums side by side, for each addition has
   to wait for the one before. */
INLINE float row_sum(const float *x, const float *y, float away, int64_t n) {
    vec sums[4] = {splat(0), splat(0), splat(0), splat(0)};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        UNROLL for (int j = 0; j < 4; j++) {
            const vec a = load(x + i + j * LANES) - away;
            if (y)
                sums[j] += a * (load(y + i + j * LANES) - away);
            else
                sums[j] += a;
        }
    }
    for (; i < n; i += LANES) {
        const int64_t some = smaller(LANES, n - i);
        const vec a = padded(load_some(x + i, some) - away, some, 0);
        if (y)
            sums[0] += a * (load_some(y + i, some) - away);
        else
            sums[0] += a;
    }
    return sum_of_lanes(sums[0] + sums[1] + (sums[2] + sums[3]));
}

static void normalize_run(const void *args, int64_t part, float *work) {
    const normalize_args *p = args;
    const Range own = normalize_rows(p, part);
    const float share = 1.0f / (float)p->columns;
    for (int64_t row = own.first; row < own.first + own.count; row++) {
        const float *x = p->x + row * p->columns;
        float *normal = p->normal + row * p->columns;
        const float mean = p->centred ? row_sum(x, NULL, 0, p->columns) * share : 0;
        const float var = row_sum(x, x, mean, p->columns) * share;
        const float inverse = 1 / __builtin_sqrtf(var + (float)p->eps);
        p->inverse[row] = inverse;
        for (int64_t i = 0; i < p->columns; i += LANES) {
            const int64_t some = smaller(LANES, p->columns - i);
            store_some(normal + i, (load_some(x + i, some) - mean) * inverse, some);
        }
    }
}

/* normalize_dx: dx = (dy - mean(dy) - normal * mean(dy * normal)) * inverse. */
static void normalize_dx_run(const void *args, int64_t part, float *work) {
    const normalize_args *p = args;
    const Range own = normalize_rows(p, part);
    const float share = 1.0f / (float)p->columns;
    for (int64_t row = own.first; row < own.first + own.count; row++) {
        const int64_t at = row * p->columns;
        const float *dy = p->dy + at, *normal = p->normal + at;
        const float mean = p->centred ? row_sum(dy, NULL, 0, p->columns) * share : 0;
        const float along = row_sum(dy, normal, 0, p->columns) * share, inverse = p->inverse[row];
        for (int64_t i = 0; i < p->columns; i += LANES) {
            const int64_t some = smaller(LANES, p->columns - i);
            const vec slope = load_some(dy + i, some) - mean - load_some(normal + i, some) * along;
            store_some(p->dx + at + i, slope * inverse, some);
        }
    }
}

/* take: out (outer, count, columns) = what index names of source (outer, rows, columns). bad: for each part whether there
   is an index that is no row, and the first of them; such a row is left as it is. */
#define FIELDS_take(A, W, L, C, I, F)                                                                          \
    A(source) W(index) A(out) W(bad) I(outer) I(rows) I(columns) I(count) I(parts)
DECLARE(take)

static Demand take_demand(const void *args) { return (Demand){((const take_args *)args)->parts, 0}; }

static void take_run(const void *args, int64_t part, float *work) {
    const take_args *p = args;
    const int64_t all = p->outer * p->count;
    int32_t *bad = p->bad + 2 * part;
    bad[0] = 0;
    for (int64_t i = all * part / p->parts; i < all * (part + 1) / p->parts; i++) {
        const int32_t row = p->index[i % p->count];
        if (row >= 0 && row < p->rows)
            copy_floats(p->out + i * p->columns, p->source + (i / p->count * p->rows + row) * p->columns, p->columns);
        else if (!bad[0])
            bad[0] = 1, bad[1] = row;
    }
}

/* scatter_add: total (outer, rows, columns) = or += source (outer, count, columns), each to the row that index names. A
   part is some of what is outside, or of one the columns of all rows, so that no two parts write to one place and the
   order of a sum is that of index. */
#define FIELDS_scatter_add(A, W, L, C, I, F)                                                                   \
    A(source) W(index) A(total) I(outer) I(rows) I(columns) I(count) I(add) I(parts)
DECLARE(scatter_add)

static Demand scatter_add_demand(const void *args) { return (Demand){((const scatter_add_args *)args)->parts, 0}; }

/* Some columns, from `first` up to `stop`, of one of what is outside. */
static void scatter_columns(const scatter_add_args *p, int64_t outer, int64_t first, int64_t stop) {
    float *total = p->total + outer * p->rows * p->columns;
    if (!p->add)
        for (int64_t row = 0; row < p->rows; row++)
            for (int64_t i = first; i < stop; i++) total[row * p->columns + i] = 0;
    for (int64_t n = 0; n < p->count; n++) {
        const int32_t row = p->index[n];
        if (row < 0 || row >= p->rows) continue;
        const float *from = p->source + (outer * p->count + n) * p->columns;
        float *to = total + row * p->columns;
        for (int64_t i = first; i < stop; i += LANES) {
            const int64_t some = smaller(LANES, stop - i);
            store_some(to + i, load_some(to + i, some) + load_some(from + i, some), some);
        }
    }
}

static void scatter_add_run(const void *args, int64_t part, float *work) {
    const scatter_add_args *p = args;
    const int64_t vectors = ceil_div(p->columns, LANES), first = vectors * part / p->parts * LANES;
    if (p->outer == 1)
        scatter_columns(p, 0, first, smaller(vectors * (part + 1) / p->parts * LANES, p->columns));
    else
        for (int64_t outer = p->outer * part / p->parts; outer < p->outer * (part + 1) / p->parts; outer++)
            scatter_columns(p, outer, 0, p->columns);
}
