/* Long short-term memory. A part owns some of the sequences from the first step to the last, so that nothing waits for
   anything inside of a call.

   Arrays are (steps, sequences, ...), and the gates i, f, o, g of a step lie side by side, `hidden` of each. The units
   are worked on a vector at a time: a block of the product gives the four gates of LANES units for a few sequences, and
   what follows of them is computed at once. For that the weight is packed as (units / LANES, hidden, 4, LANES); on the
   way back, where the sum goes over all gates, in panels. */

#define FIELDS_lstm_pack(A, W, L, C, I, F) A(weight) A(packed) I(hidden)
DECLARE(lstm_pack)
#define FIELDS_lstm(A, W, L, C, I, F)                                                                          \
    A(gates) A(packed) A(y) A(cells) A(before) A(cont) A(h0) A(c0) I(steps) I(sequences) I(hidden) I(parts)
DECLARE(lstm)
#define FIELDS_lstm_dz(A, W, L, C, I, F)                                                                       \
    A(dy) A(gates) A(cells) A(packed) A(dz) A(cont) A(dh) A(dc) A(dh0) A(dc0)                                  \
    I(steps) I(sequences) I(hidden) I(parts)
DECLARE(lstm_dz)

enum { GATES = 4, GATES_AT_ONCE = MOST_VECTORS < GATES ? GATES / 2 : GATES };

/* A part packs one gate. */
static Demand lstm_pack_demand(const void *args) { return (Demand){GATES, 0}; }

/* For lstm: packed[unit / LANES][k][gate][unit % LANES] = weight[gate * hidden + unit][k]. */
static void lstm_pack_run(const void *args, int64_t gate, float *work) {
    const lstm_pack_args *p = args;
    for (int64_t unit = 0; unit < p->hidden; unit += LANES)
        pack(p->weight + (gate * p->hidden + unit) * p->hidden, 1, p->hidden, p->hidden,
             smaller(LANES, p->hidden - unit), GATES * LANES, p->packed + unit * GATES * p->hidden + gate * LANES);
}

/* For lstm_dz: the weight as it is, in panels. */
static void lstm_pack_back_run(const void *args, int64_t gate, float *work) {
    const lstm_pack_args *p = args;
    for (int64_t column = 0; column < p->hidden; column += panel_width(column, p->hidden)) {
        const int64_t width = panel_width(column, p->hidden);
        pack(p->weight + gate * p->hidden * p->hidden + column, p->hidden, 1, p->hidden,
             smaller(width, p->hidden - column), width, p->packed + column * GATES * p->hidden + gate * p->hidden * width);
    }
}

/* The sequences of a part: from `first` on, `count` of them. */
typedef struct {
    int64_t first, count;
} Sequences;

INLINE Sequences own_sequences(int64_t sequences, int64_t part, int64_t parts) {
    const int64_t first = sequences * part / parts;
    return (Sequences){first, sequences * (part + 1) / parts - first};
}

INLINE int64_t most_sequences(int64_t sequences, int64_t parts) { return ceil_div(sequences, parts); }

/* How far a state is kept at a step of a sequence. */
INLINE float kept(const float *cont, int64_t at) { return cont ? cont[at] : 1; }

static Demand lstm_demand(const void *args) {
    const lstm_args *p = args;
    return (Demand){p->parts, GATES * LANES * MOST_ROWS};
}

/* The first cells and what goes into the first step. */
static void lstm_begin(const lstm_args *p, Sequences own) {
    for (int64_t n = own.first; n < own.first + own.count; n++)
        for (int64_t unit = 0; unit < p->hidden; unit++) {
            const int64_t at = n * p->hidden + unit;
            p->cells[at] = p->c0 ? p->c0[at] : 0;
            p->before[at] = p->h0 ? kept(p->cont, n) * p->h0[at] : 0;
        }
}

/* Some units of a sequence at a step, from the sums of their gates (GATES, LANES). */
INLINE void lstm_units(const lstm_args *p, int64_t step, int64_t n, int64_t unit, const float *sums) {
    const int64_t some = smaller(LANES, p->hidden - unit), all = p->sequences * p->hidden;
    const int64_t at = (step * p->sequences + n) * p->hidden + unit;
    float *gates = p->gates + (at - unit) * GATES + unit;
    vec z[GATES];
    UNROLL for (int gate = 0; gate < GATES; gate++)
        z[gate] = load(sums + gate * LANES) + load_some(gates + gate * p->hidden, some);
    const vec i = vsigmoid(z[0]), f = vsigmoid(z[1]), o = vsigmoid(z[2]), g = vtanh(z[3]);
    const vec c = f * (kept(p->cont, step * p->sequences + n) * load_some(p->cells + at, some)) + i * g;
    const vec y = o * vtanh(c);
    store_some(gates, i, some);
    store_some(gates + p->hidden, f, some);
    store_some(gates + 2 * p->hidden, o, some);
    store_some(gates + 3 * p->hidden, g, some);
    store_some(p->cells + at + all, c, some);
    store_some(p->y + at, y, some);
    if (step + 1 < p->steps)
        store_some(p->before + at + all, kept(p->cont, (step + 1) * p->sequences + n) * y, some);
}

/* One step of the sequences n to n + count, no more of them than a block has rows. */
static void lstm_block(const lstm_args *p, int64_t step, int64_t n, int64_t count, int64_t unit, float *sums) {
    const float *a[MOST_ROWS];
    float *out[MOST_ROWS];
    for (int gate = 0; gate < GATES; gate += GATES_AT_ONCE) {
        for (int r = 0; r < ROWS(GATES_AT_ONCE); r++) {
            a[r] = p->before + (step * p->sequences + n + smaller(r, count - 1)) * p->hidden;
            out[r] = sums + (r * GATES + gate) * LANES;
        }
        const float *b = p->packed + unit * GATES * p->hidden + gate * LANES;
        RowBlock t = {a, ONE_TAP, 1, p->hidden, &b, GATES * LANES, NULL, out, count, GATES_AT_ONCE * LANES, 0};
        run_rows_block(&t, GATES_AT_ONCE);
    }
    for (int64_t r = 0; r < count; r++) lstm_units(p, step, n + r, unit, sums + r * GATES * LANES);
}

static void lstm_run(const void *args, int64_t part, float *work) {
    const lstm_args *p = args;
    const Sequences own = own_sequences(p->sequences, part, p->parts);
    lstm_begin(p, own);
    for (int64_t step = 0; step < p->steps; step++)
        for (int64_t unit = 0; unit < p->hidden; unit += LANES)
            for (int64_t n = 0; n < own.count; n += ROWS(GATES_AT_ONCE))
                lstm_block(p, step, own.first + n, smaller(ROWS(GATES_AT_ONCE), own.count - n), unit, work);
}

/* The way back. The workspace holds the gradients of h and c of the part's sequences, (count, hidden) each: at first
   those of the state behind the last step, then what each step hands to the one before, without cont. */

static Demand lstm_dz_demand(const void *args) {
    const lstm_dz_args *p = args;
    return (Demand){p->parts, 2 * most_sequences(p->sequences, p->parts) * p->hidden};
}

/* out = what is given, or zero. */
static void take_state(const float *given, float *out, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[i] = given ? given[i] : 0;
}

/* The gradient of the gates of some units of a sequence at a step, and of their cells at the step before. */
INLINE void lstm_units_back(const lstm_dz_args *p, int64_t step, int64_t n, int64_t unit, float *dh, float *dc) {
    const int64_t some = smaller(LANES, p->hidden - unit), all = p->sequences * p->hidden;
    const int64_t at = (step * p->sequences + n) * p->hidden + unit, gate = (at - unit) * GATES + unit;
    const float keep = kept(p->cont, step * p->sequences + n);
    const float later = step + 1 < p->steps ? kept(p->cont, (step + 1) * p->sequences + n) : 1;
    const float *gates = p->gates + gate;
    const vec i = load_some(gates, some), f = load_some(gates + p->hidden, some);
    const vec o = load_some(gates + 2 * p->hidden, some), g = load_some(gates + 3 * p->hidden, some);
    const vec tanh_c = vtanh(load_some(p->cells + at + all, some));
    const vec up = load_some(p->dy + at, some) + later * load_some(dh, some);
    const vec down = later * load_some(dc, some) + up * o * (1 - tanh_c * tanh_c);
    float *dz = p->dz + gate;
    store_some(dz, down * g * i * (1 - i), some);
    store_some(dz + p->hidden, down * (keep * load_some(p->cells + at, some)) * f * (1 - f), some);
    store_some(dz + 2 * p->hidden, up * tanh_c * o * (1 - o), some);
    store_some(dz + 3 * p->hidden, down * i * (1 - g * g), some);
    store_some(dc, down * f, some);
}

/* dh = dz @ weight, for the sequences of a part. */
static void lstm_state_back(const lstm_dz_args *p, int64_t step, Sequences own, float *dh) {
    const int64_t width = GATES * p->hidden;
    run_rows(p->dz + (step * p->sequences + own.first) * width, width, p->packed, dh, p->hidden, own.count, width,
             p->hidden);
}

/* The gradients of the first state. */
static void lstm_end_back(const lstm_dz_args *p, Sequences own, const float *dh, const float *dc) {
    for (int64_t n = 0; n < own.count; n++)
        for (int64_t unit = 0; unit < p->hidden; unit++) {
            const int64_t at = n * p->hidden + unit, to = own.first * p->hidden + at;
            const float keep = kept(p->cont, own.first + n);
            if (p->dh0) p->dh0[to] = keep * dh[at];
            if (p->dc0) p->dc0[to] = keep * dc[at];
        }
}

static void lstm_dz_run(const void *args, int64_t part, float *work) {
    const lstm_dz_args *p = args;
    const Sequences own = own_sequences(p->sequences, part, p->parts);
    const int64_t state = own.first * p->hidden, size = own.count * p->hidden;
    float *dh = work, *dc = work + size;
    take_state(p->dh ? p->dh + state : NULL, dh, size);
    take_state(p->dc ? p->dc + state : NULL, dc, size);
    for (int64_t step = p->steps - 1; step >= 0; step--) {
        for (int64_t n = 0; n < own.count; n++)
            for (int64_t unit = 0; unit < p->hidden; unit += LANES) {
                const int64_t at = n * p->hidden + unit;
                lstm_units_back(p, step, own.first + n, unit, dh + at, dc + at);
            }
        if (step || p->dh0) lstm_state_back(p, step, own, dh);
    }
    lstm_end_back(p, own, dh, dc);
}
