/* Rows that are taken, and summed, by index. */

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
