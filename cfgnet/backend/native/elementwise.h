/* map: elementwise programs, as backend/expression.py makes them of formulas, over blocks that stay in a core's cache.

   Every operand becomes a row of `block` floats before an instruction sees it: arrays as they lie, what repeats (a value
   per channel, a number) written out once per part, and what lies otherwise for each block: slices, whose elements lie in
   pieces and are copied back where they are written, and what is the same for all elements of a run. So an instruction
   is one loop. */

/* The functions: the name, and the result for operands x, y and z. */
#define FUNCTIONS(F)                                                                                           \
    F(copy, x)                                                                                                 \
    F(negative, -x)                                                                                            \
    F(absolute, vabs(x))                                                                                       \
    F(sqrt, vsqrt(x))                                                                                          \
    F(sign, vsign(x))                                                                                          \
    F(trunc, vtrunc(x))                                                                                        \
    F(exp, vexp(x))                                                                                            \
    F(expm1, vexpm1(x))                                                                                        \
    F(log, vlog(x))                                                                                            \
    F(log1p, vlog1p(x))                                                                                        \
    F(tanh, vtanh(x))                                                                                          \
    F(erf, verf(x))                                                                                            \
    F(sigmoid, vsigmoid(x))                                                                                    \
    F(add, x + y)                                                                                              \
    F(subtract, x - y)                                                                                         \
    F(multiply, x *y)                                                                                          \
    F(divide, x / y)                                                                                           \
    F(power, vpower(x, y))                                                                                     \
    F(maximum, vmaximum(x, y))                                                                                 \
    F(minimum, vminimum(x, y))                                                                                 \
    F(greater, truth(x > y))                                                                                   \
    F(greater_equal, truth(x >= y))                                                                            \
    F(less, truth(x < y))                                                                                      \
    F(less_equal, truth(x <= y))                                                                               \
    F(equal, truth(x == y))                                                                                    \
    F(where, choose(x != 0.0f, y, z))

typedef void (*Function)(float *out, const float *a, const float *b, const float *c, int64_t n);

#define LOOP(name, value)                                                                                      \
    static void map_##name(float *out, const float *a, const float *b, const float *c, int64_t n) {            \
        int64_t i = 0;                                                                                         \
        for (; i + LANES <= n; i += LANES) {                                                                   \
            vec x = load(a + i), y = load(b + i), z = load(c + i);                                             \
            (void)y, (void)z;                                                                                  \
            store(out + i, value);                                                                             \
        }                                                                                                      \
        if (i < n) {                                                                                           \
            vec x = load_some(a + i, n - i), y = load_some(b + i, n - i), z = load_some(c + i, n - i);         \
            (void)y, (void)z;                                                                                  \
            store_some(out + i, value, n - i);                                                                 \
        }                                                                                                      \
    }
FUNCTIONS(LOOP)

#define FUNCTION_ENTRY(name, value) map_##name,
static const Function MAP_FUNCTIONS[] = {FUNCTIONS(FUNCTION_ENTRY)};

/* code: for each instruction the function, the place of the result, and the places of three operands; a function of
   fewer takes its last one again. kinds and periods: what stands at each place. arrays: its array, where it has one.
   steps: of a slice, from piece to piece; the length of a run. writes: whether a slice is written, and whether sums of lines are added. */
#define FIELDS_map(A, W, L, C, I, F)                                                                           \
    W(code) I(instructions) W(kinds) W(periods) W(steps) W(writes) L(arrays) A(numbers) I(places) I(length) I(block)  \
        I(parts)
DECLARE(map)

/* What stands at a place: an array with one value per element; one that repeats after `period` elements; a number in
   the program; a result in between; a sum over the part, of which there is a row (of `period`) for each part; a slice,
   with pieces of `period` elements; sums of lines of `period` elements, one for each line; or an array with one value
   for each run, of which there are `period` before they repeat. */
enum { ELEMENT, REPEATED, NUMBER, RESULT, TOTAL, SLICE, LINES, RUNS, MOST_PLACES = 128 };

static int64_t map_work(const void *args) {
    const map_args *m = args;
    return m ? m->places * whole_vectors(m->block) : 0;
}

static Demand map_demand(const void *args) {
    const map_args *m = args;
    return (Demand){m->parts, map_work(args)};
}

/* Fills a row of `n` with what repeats after `period`. */
static void repeat(const float *from, int64_t period, float *row, int64_t n) {
    for (int64_t i = 0; i < period; i++) row[i] = from[i];
    int64_t i = period;
    for (; period >= LANES && i + LANES <= n; i += LANES) store(row + i, load(row + i - period));
    for (; i < n; i++) row[i] = row[i - period];
}

/* Prepares the rows of what does not change from block to block. */
static void map_begin(const map_args *m, float *work, float **at) {
    int64_t width = whole_vectors(m->block);
    for (int64_t place = 0; place < m->places; place++) {
        float *row = at[place] = work + place * width;
        if (m->kinds[place] == REPEATED)
            repeat(m->arrays[place], m->periods[place], row, m->block);
        else if (m->kinds[place] == NUMBER || m->kinds[place] == TOTAL)
            for (int64_t i = 0; i < m->block; i++) row[i] = m->kinds[place] == NUMBER ? m->numbers[place] : 0;
    }
}

/* Sums the row of a total down to one period. */
static void map_end(const map_args *m, int64_t part, float *const *at) {
    for (int64_t place = 0; place < m->places; place++) {
        if (m->kinds[place] != TOTAL) continue;
        int64_t period = m->periods[place];
        float *total = m->arrays[place] + part * period;
        const int64_t width = period >= LANES ? LANES : 1;
        for (int64_t i = 0; i < period; i += width) {
            const int64_t n = smaller(width, period - i);
            vec sum = splat(0);
            for (int64_t j = i; j < m->block; j += period) sum += load_some(at[place] + j, n);
            store_some(total + i, sum, n);
        }
    }
}

/* Copies the elements of a slice from `start` on into a row, or back. */
static void map_slice(const map_args *m, int64_t place, int64_t start, int64_t n, float *row, int back) {
    const int64_t width = m->periods[place];
    for (int64_t done = 0; done < n;) {
        const int64_t at = (start + done) % width, size = smaller(width - at, n - done);
        float *piece = m->arrays[place] + (start + done) / width * m->steps[place] + at;
        float *to = back ? piece : row + done, *from = back ? row + done : piece;
        EACH_VECTOR(size, { store_some(to + i, load_some(from + i, some), some); })
        done += size;
    }
}

/* Fills a row with the values of the runs from element `start` on. */
static void map_runs(const map_args *m, int64_t place, int64_t start, int64_t n, float *row) {
    const int64_t length = m->steps[place], count = m->periods[place];
    int64_t run = start / length % count, left = length - start % length;
    for (int64_t done = 0; done < n; left = length, run = run + 1 < count ? run + 1 : 0) {
        const int64_t size = smaller(left, n - done);
        const vec value = splat(m->arrays[place][run]);
        EACH_VECTOR(size, { store_some(row + done + i, value, some); })
        done += size;
    }
}

/* Sums the lines of a row. */
static void map_lines(const map_args *m, int64_t place, int64_t start, int64_t n, const float *row) {
    const int64_t width = m->periods[place];
    float *out = m->arrays[place] + start / width;
    for (const float *stop = row + n; row < stop; row += width, out++) {
        vec sum = splat(0);
        EACH_VECTOR(width, { sum += load_some(row + i, some); })
        *out = sum_of_lanes(sum) + (m->writes[place] ? *out : 0);
    }
}

/* Some elements, of which the first is a multiple of all periods. */
static void map_over(const void *args, int64_t part, Range range, float *work) {
    const map_args *m = args;
    const int64_t stop = range.first + range.count;
    float *at[MOST_PLACES];
    map_begin(m, work, at);
    for (int64_t start = range.first; start < stop; start += m->block) {
        int64_t n = smaller(m->block, stop - start);
        for (int64_t place = 0; place < m->places; place++)
            if (m->kinds[place] == ELEMENT)
                at[place] = m->arrays[place] + start;
            else if (m->kinds[place] == SLICE)
                map_slice(m, place, start, n, at[place], 0);
            else if (m->kinds[place] == RUNS)
                map_runs(m, place, start, n, at[place]);
        for (const int32_t *code = m->code; code < m->code + 5 * m->instructions; code += 5)
            MAP_FUNCTIONS[code[0]](at[code[1]], at[code[2]], at[code[3]], at[code[4]], n);
        for (int64_t place = 0; place < m->places; place++)
            if (m->kinds[place] == SLICE && m->writes[place])
                map_slice(m, place, start, n, at[place], 1);
            else if (m->kinds[place] == LINES)
                map_lines(m, place, start, n, at[place]);
    }
    map_end(m, part, at);
}

static void map_run(const void *args, int64_t part, float *work) {
    const map_args *m = args;
    int64_t blocks = ceil_div(m->length, m->block);
    int64_t first = blocks * part / m->parts * m->block, stop = blocks * (part + 1) / m->parts * m->block;
    map_over(m, part, (Range){first, smaller(stop, m->length) - first}, work);
}
