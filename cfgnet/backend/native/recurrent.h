/* What recurrent layers share. A part owns some of the sequences from the first step to the last, so that nothing waits
   for anything inside of a call.

   Arrays are (steps, sequences, ...), and the gates of a step lie side by side, `hidden` of each. The units are worked on
   a vector at a time: a block of the product gives some gates of LANES units for a few sequences, and what follows of
   them is computed at once. For that the weight is packed as (units / LANES, depth, gates, LANES); on the way back, where
   the sum goes over all gates, in panels. */

#define FIELDS_gates_pack(A, W, L, C, I, F) A(weight) A(packed) I(gates) I(hidden) I(depth)
DECLARE(gates_pack)

/* A part packs one gate. */
static Demand gates_pack_demand(const void *args) {
    const gates_pack_args *p = args;
    return (Demand){p->gates, 0};
}

/* For the sums of gates: packed[unit / LANES][k][gate][unit % LANES] = weight[gate * hidden + unit][k]. */
static void gates_pack_run(const void *args, int64_t gate, float *work) {
    const gates_pack_args *p = args;
    for (int64_t unit = 0; unit < p->hidden; unit += LANES)
        pack(p->weight + (gate * p->hidden + unit) * p->depth, 1, p->depth, p->depth, smaller(LANES, p->hidden - unit),
             p->gates * LANES, p->packed + unit * p->gates * p->depth + gate * LANES);
}

/* For the way back: the weight as it is, in panels. */
static void gates_pack_back_run(const void *args, int64_t gate, float *work) {
    const gates_pack_args *p = args;
    for (int64_t column = 0; column < p->hidden; column += panel_width(column, p->hidden)) {
        const int64_t width = panel_width(column, p->hidden);
        pack(p->weight + gate * p->hidden * p->hidden + column, p->hidden, 1, p->hidden,
             smaller(width, p->hidden - column), width,
             p->packed + column * p->gates * p->hidden + gate * p->hidden * width);
    }
}

/* What all calls are told: with `reverse` they go from the last step to the first, and "before", "next" and "behind" are
   meant in the order in which they go; where `valid` is 0, a step of a sequence does not count, y is 0, the state stays
   as it is, whatever cont says, and there is no gradient. The fields are the first of every call. */
#define FIELDS_walk(A, W, L, C, I, F) A(cont) A(valid) I(reverse) I(steps) I(sequences) I(hidden) I(parts)
typedef struct {
    FIELDS_walk(MEMBER_A, MEMBER_W, MEMBER_L, MEMBER_C, MEMBER_I, MEMBER_F)
} Walk;

/* The sequences of a part: from `first` on, `count` of them. */
typedef struct {
    int64_t first, count;
} Sequences;

INLINE Sequences own_sequences(const Walk *w, int64_t part) {
    const int64_t first = w->sequences * part / w->parts;
    return (Sequences){first, w->sequences * (part + 1) / w->parts - first};
}

/* How many floats a state of the sequences of a part takes at most. */
INLINE int64_t most_state(const Walk *w) { return ceil_div(w->sequences, w->parts) * w->hidden; }

/* The row of the first sequence at a step, counted in the order in which the steps are gone through. */
INLINE int64_t row_at(const Walk *w, int64_t step) {
    return (w->reverse ? w->steps - 1 - step : step) * w->sequences;
}

/* The row of the same sequence at the next step, and whether there is one. */
INLINE int64_t next_row(const Walk *w, int64_t row) { return w->reverse ? row - w->sequences : row + w->sequences; }
INLINE int is_row(const Walk *w, int64_t row) { return 0 <= row && row < w->steps * w->sequences; }

/* Some units of a row, which is a sequence at a step: how many they are, where in a state, and where in the gates. */
typedef struct {
    int64_t count, at, gate;
} Units;

INLINE Units units_of(int64_t row, int64_t unit, int64_t hidden, int64_t gates) {
    return (Units){smaller(LANES, hidden - unit), row * hidden + unit, row * gates * hidden + unit};
}

/* Whether the step of a row does not count. */
INLINE int ended(const Walk *w, int64_t row) { return w->valid && !w->valid[row]; }

/* How far the state before a row is kept. */
INLINE float kept(const Walk *w, int64_t row) { return w->cont && !ended(w, row) ? w->cont[row] : 1; }

/* How far the state behind a row is kept for the row of the next step; all of it behind the last step. */
INLINE float kept_on(const Walk *w, int64_t row) {
    const int64_t next = next_row(w, row);
    return is_row(w, next) ? kept(w, next) : 1;
}

/* Hands the state of some units of a row to the row of the next step, if there is one. */
INLINE void hand_on(const Walk *w, int64_t row, Units own, vec state, float *before) {
    const int64_t next = next_row(w, row);
    if (is_row(w, next)) store_some(before + own.at + (next - row) * w->hidden, kept(w, next) * state, own.count);
}

/* out = a state, or zero where none is given. */
static void take_state(const float *given, float *out, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[i] = given ? given[i] : 0;
}

/* out = cont at the first step * a state of the sequences of a part, or zero where none is given. */
static void keep_state(const Walk *w, Sequences own, const float *given, float *out) {
    const int64_t row = row_at(w, 0) + own.first;
    for (int64_t n = 0; n < own.count; n++)
        for (int64_t at = n * w->hidden; at < (n + 1) * w->hidden; at++)
            out[at] = given ? kept(w, row + n) * given[at] : 0;
}

/* A matrix (rows, depth), of which some rows are multiplied with a packed weight. */
typedef struct {
    const float *rows;
    int64_t depth;
    const float *packed;
} Factors;

/* sums[r][gate][lane] = or += row r of some rows @ the weight of `gates` gates of LANES units, `at_once` of them in a
   block; there are no more rows than a block has. */
INLINE void sum_gates(const Factors *f, int64_t row, int64_t count, int64_t unit, const int gates, const int at_once,
                      int add, float *sums) {
    const float *a[MOST_ROWS];
    float *out[MOST_ROWS];
    for (int gate = 0; gate < gates; gate += at_once) {
        for (int r = 0; r < ROWS(at_once); r++) {
            a[r] = f->rows + (row + smaller(r, count - 1)) * f->depth;
            out[r] = sums + (r * gates + gate) * LANES;
        }
        const float *b = f->packed + unit * gates * f->depth + gate * LANES;
        RowBlock t = {a, ONE_TAP, 1, f->depth, &b, gates * LANES, NULL, out, count, at_once * LANES, add};
        run_rows_block(&t, at_once);
    }
}

/* What is computed of the sums of some units of a row, (gates, LANES). */
typedef void OfSums(const void *args, int64_t row, int64_t unit, const float *sums);

/* For the rows from `row` on, `count` of them, and all units: the sums of `gates` gates over one or two matrices, and what
   is computed of them. */
INLINE void for_sums(const Factors *one, const Factors *other, int64_t row, int64_t count, int64_t hidden, const int gates,
                     const int at_once, float *sums, OfSums *each, const void *args) {
    for (int64_t unit = 0; unit < hidden; unit += LANES)
        for (int64_t n = 0; n < count; n += ROWS(at_once)) {
            const int64_t some = smaller(ROWS(at_once), count - n);
            sum_gates(one, row + n, some, unit, gates, at_once, 0, sums);
            if (other) sum_gates(other, row + n, some, unit, gates, at_once, 1, sums);
            for (int64_t r = 0; r < some; r++) each(args, row + n + r, unit, sums + r * gates * LANES);
        }
}
