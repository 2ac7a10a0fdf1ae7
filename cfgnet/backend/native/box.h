/* box_sum: y = the sum over the elements not more than `radius` away along one axis, in its place; y is (outer, n, inner)
   in memory. `first`, where there is one, is a map that computes what is summed into y, some lines (n, inner) at a time,
   so that they are in the cache.

   Along the axis a step is `inner` elements of a line. So that no element is a special case, a line is copied between
   zeros first; an element of the sum is then that of 2 * radius + 1 elements a step apart. */

#define FIELDS_box_sum(A, W, L, C, I, F) A(y) C(first) I(outer) I(n) I(inner) I(radius) I(lines) I(parts)
DECLARE(box_sum)

INLINE int64_t box_margin(const box_sum_args *p) { return p->radius * p->inner; }

/* A line between zeros, all of whose elements can be read by whole vectors. */
INLINE int64_t box_line(const box_sum_args *p) { return whole_vectors(p->n * p->inner) + 2 * box_margin(p); }

static Demand box_sum_demand(const void *args) {
    const box_sum_args *p = args;
    return (Demand){p->parts, box_line(p) + map_work(p->first)};
}

static void box_of_line(const box_sum_args *p, float *y, float *line) {
    const int64_t size = p->n * p->inner, margin = box_margin(p);
    for (int64_t i = 0; i < size; i++) line[margin + i] = y[i];
    for (int64_t i = 0; i < size; i += LANES) {
        vec sum = splat(0);
        for (int64_t j = i; j <= i + 2 * margin; j += p->inner) sum += load(line + j);
        store_some(y + i, sum, smaller(LANES, size - i));
    }
}

static void box_sum_run(const void *args, int64_t part, float *work) {
    const box_sum_args *p = args;
    const int64_t size = p->n * p->inner, stop = p->outer * (part + 1) / p->parts;
    for (int64_t i = 0; i < box_line(p); i++) work[i] = 0;
    for (int64_t first = p->outer * part / p->parts; first < stop; first += p->lines) {
        const int64_t lines = smaller(p->lines, stop - first);
        if (p->first) map_over(p->first, 0, (Range){first * size, lines * size}, work + box_line(p));
        for (int64_t line = first; line < first + lines; line++) box_of_line(p, p->y + line * size, work);
    }
}
