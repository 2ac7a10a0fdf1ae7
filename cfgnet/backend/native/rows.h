/* Rows that are taken, and summed, by index. */

/* take: out (outer, count, columns) = what index names of source (outer, rows, columns). bad: for each part whether there
   is an index that is no row, and the first of them; such a row is left as it is. */
#define FIELDS_take(A, W, L, C, I, F)                                                                          \
    A(source) W(index) A(out) W(bad) I(outer) I(rows) I(columns) I(count) I(parts)
DECLARE(take)

static Demand take_demand(const void *args) { return (Demand){((const take_args *)args)->parts, 0}; }

static Range take_covers(const void *args, int64_t part) {
    const take_args *p = args;
    const int64_t all = p->outer * p->count, first = all * part / p->parts;
    return (Range){first * p->columns, (all * (part + 1) / p->parts - first) * p->columns};
}

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
   part is one of `pieces` of the columns of one of what is outside, so that no two parts write to one place; how many
   there are makes no difference to a sum, whose order is that of index. */
#define FIELDS_scatter_add(A, W, L, C, I, F)                                                                   \
    A(source) W(index) A(total) I(outer) I(rows) I(columns) I(count) I(add) I(pieces)
DECLARE(scatter_add)

static Demand scatter_add_demand(const void *args) {
    const scatter_add_args *p = args;
    return (Demand){p->outer * p->pieces, 0};
}

static void scatter_add_run(const void *args, int64_t part, float *work) {
    const scatter_add_args *p = args;
    const int64_t outer = part / p->pieces, piece = part % p->pieces, vectors = ceil_div(p->columns, LANES);
    const int64_t first = vectors * piece / p->pieces * LANES;
    const int64_t width = smaller(vectors * (piece + 1) / p->pieces * LANES, p->columns) - first;
    float *total = p->total + outer * p->rows * p->columns + first;
    const float *from = p->source + outer * p->count * p->columns + first;
    for (int64_t row = 0; !p->add && row < p->rows; row++) clear_floats(total + row * p->columns, width);
    for (int64_t n = 0; n < p->count; n++, from += p->columns) {
        const int32_t row = p->index[n];
        if (row < 0 || row >= p->rows) continue;
        float *to = total + row * p->columns;
        EACH_VECTOR(width, { store_some(to + i, load_some(to + i, some) + load_some(from + i, some), some); })
    }
}

/* keep: y (rows, columns) = the rows of x whose selector is not 0, one behind another, and then rows of `fill`, whatever
   its 32 bits are. With `back`, y is what such rows are put back to: row i of x where the i-th selected one was, and 0
   elsewhere. */
#define FIELDS_keep(A, W, L, C, I, F) A(selector) A(x) A(y) A(fill) I(rows) I(columns) I(back) I(parts)
DECLARE(keep)

static Demand keep_demand(const void *args) { return (Demand){((const keep_args *)args)->parts, 0}; }

static void keep_run(const void *args, int64_t part, float *work) {
    const keep_args *p = args;
    const int64_t first = p->rows * part / p->parts, stop = p->rows * (part + 1) / p->parts;
    int64_t place = 0, kept = 0;
    for (int64_t row = 0; row < p->rows; row++) {
        place += row < first && p->selector[row] != 0;
        kept += p->selector[row] != 0;
    }
    for (int64_t row = first; row < stop; row++) {
        const int64_t from = p->back ? place : row, to = p->back ? row : place;
        float *rest = p->y + row * p->columns;
        if (p->selector[row] != 0)
            copy_floats(p->y + to * p->columns, p->x + from * p->columns, p->columns), place++;
        else if (p->back)
            clear_floats(rest, p->columns);
        if (!p->back && row >= kept)
            for (int64_t i = 0; i < p->columns; i++) rest[i] = *p->fill;
    }
}
