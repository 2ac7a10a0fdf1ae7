/* The largest and the smallest of many numbers, and where they are. x is (outer, n, inner), and nan comes before all
   numbers. Where `inner` is 1, a vector holds elements of a line; otherwise it holds lines. */

/* extreme: y (outer, inner) = the largest or smallest along n; index, which may be NULL, is where the first of them is. */
#define FIELDS_extreme(A, W, L, C, I, F) A(x) A(y) W(index) I(outer) I(n) I(inner) I(largest) I(parts)
DECLARE(extreme)

static Demand extreme_demand(const void *args) { return (Demand){((const extreme_args *)args)->parts, 0}; }

INLINE int comes_before(float x, float other, int64_t largest) {
    return (largest ? x > other : x < other) || (x != x && other == other);
}

/* In each lane, what comes first of two elements, and where it is. */
INLINE void come_first(vec *found, ivec *at, vec x, ivec where, int64_t largest) {
    const ivec before = (largest ? x > *found : x < *found) | ((x != x) & (*found == *found));
    *found = choose(before, x, *found);
    *at = (where & before) | (*at & ~before);
}

static void extreme_row(const extreme_args *p, int64_t line) {
    const float *x = p->x + line * p->n;
    float found = x[0];
    int32_t at = 0;
    int64_t i = 1;
    if (p->n >= LANES) {
        vec best = load(x);
        ivec lanes, where;
        for (int32_t lane = 0; lane < LANES; lane++) lanes[lane] = lane;
        where = lanes;
        for (i = LANES; i + LANES <= p->n; i += LANES)
            come_first(&best, &where, load(x + i), lanes + (int32_t)i, p->largest);
        found = best[0], at = where[0];
        for (int lane = 1; lane < LANES; lane++) {
            const int alike = !comes_before(found, best[lane], p->largest);
            if (comes_before(best[lane], found, p->largest) || (alike && where[lane] < at))
                found = best[lane], at = where[lane];
        }
    }
    for (; i < p->n; i++)
        if (comes_before(x[i], found, p->largest)) found = x[i], at = (int32_t)i;
    p->y[line] = found;
    if (p->index) p->index[line] = at;
}

static void extreme_column(const extreme_args *p, int64_t outer, int64_t inner, int64_t some) {
    const float *x = p->x + outer * p->n * p->inner + inner;
    vec best = load_some(x, some);
    ivec where = {0};
    for (int64_t i = 1; i < p->n; i++)
        come_first(&best, &where, load_some(x + i * p->inner, some), (ivec){0} + (int32_t)i, p->largest);
    store_some(p->y + outer * p->inner + inner, best, some);
    for (int64_t lane = 0; p->index && lane < some; lane++) p->index[outer * p->inner + inner + lane] = where[lane];
}

static void extreme_run(const void *args, int64_t part, float *work) {
    const extreme_args *p = args;
    const int64_t across = ceil_div(p->inner, LANES), lines = p->outer * across;
    for (int64_t line = lines * part / p->parts; line < lines * (part + 1) / p->parts; line++) {
        const int64_t inner = line % across * LANES;
        if (p->inner == 1)
            extreme_row(p, line);
        else
            extreme_column(p, line / across, inner, smaller(LANES, p->inner - inner));
    }
}

/* largest: index and values (outer, count, inner), of which one may be NULL: the `count` largest along n, the largest
   first, and of equal ones the last. */
#define FIELDS_largest(A, W, L, C, I, F) A(x) W(index) A(values) I(outer) I(n) I(inner) I(count) I(parts)
DECLARE(largest)

static Demand largest_demand(const void *args) {
    const largest_args *p = args;
    return (Demand){p->parts, 2 * p->count};
}

static void largest_run(const void *args, int64_t part, float *work) {
    const largest_args *p = args;
    const int64_t lines = p->outer * p->inner;
    int32_t *where = (int32_t *)(work + p->count);
    for (int64_t line = lines * part / p->parts; line < lines * (part + 1) / p->parts; line++) {
        const float *x = p->x + line / p->inner * p->n * p->inner + line % p->inner;
        int64_t have = 0;
        for (int64_t i = 0; i < p->n; i++) {
            const float value = x[i * p->inner];
            /* Of equal ones the last comes first, and so does the last nan. */
            int64_t place = have;
            while (place > 0 && (value >= work[place - 1] || value != value)) place--;
            if (place == p->count) continue;
            have = smaller(have + 1, p->count);
            for (int64_t j = have - 1; j > place; j--) work[j] = work[j - 1], where[j] = where[j - 1];
            work[place] = value, where[place] = (int32_t)i;
        }
        const int64_t at = line / p->inner * p->count * p->inner + line % p->inner;
        for (int64_t j = 0; j < p->count; j++) {
            if (p->index) p->index[at + j * p->inner] = where[j];
            if (p->values) p->values[at + j * p->inner] = work[j];
        }
    }
}
