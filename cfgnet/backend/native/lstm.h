/* Long short-term memory: the gates i, f, o, g. */

#define FIELDS_lstm(A, W, L, C, I, F)                                                                          \
    FIELDS_walk(A, W, L, C, I, F)                                                                              \
    A(x) A(packed_x) A(bias) I(inputs) A(gates) A(packed) A(y) A(cells) A(before) A(h0) A(c0)
DECLARE(lstm)
#define FIELDS_lstm_dz(A, W, L, C, I, F)                                                                       \
    FIELDS_walk(A, W, L, C, I, F) A(dy) A(gates) A(cells) A(packed) A(dz) A(dh) A(dc) A(dh0) A(dc0)
DECLARE(lstm_dz)

enum { LSTM_GATES = 4, LSTM_GATES_AT_ONCE = MOST_VECTORS < LSTM_GATES ? LSTM_GATES / 2 : LSTM_GATES };

/* Where the cells before and behind a row lie, of which there is a step more than of all else. */
INLINE int64_t cells_before(const Walk *w, int64_t at) { return w->reverse ? at + w->sequences * w->hidden : at; }
INLINE int64_t cells_behind(const Walk *w, int64_t at) { return w->reverse ? at : at + w->sequences * w->hidden; }

static Demand lstm_demand(const void *args) {
    const lstm_args *p = args;
    return (Demand){p->parts, LSTM_GATES * LANES * MOST_ROWS};
}

/* Some units of a row, from the sums of their gates. What inputs contribute is among these, but for the bias, or it stands
   where the gates will. */
INLINE void lstm_units(const void *args, int64_t row, int64_t unit, const float *sums) {
    const lstm_args *p = args;
    const Units own = units_of(row, unit, p->hidden, LSTM_GATES);
    const int64_t some = own.count;
    float *gates = p->gates + own.gate;
    const float *more = p->x ? p->bias + unit : gates;
    vec z[LSTM_GATES];
    UNROLL for (int gate = 0; gate < LSTM_GATES; gate++)
        z[gate] = load(sums + gate * LANES) + load_some(more + gate * p->hidden, some);
    const vec i = vsigmoid(z[0]), f = vsigmoid(z[1]), o = vsigmoid(z[2]), g = vtanh(z[3]);
    const float *old = p->cells + cells_before(args, own.at);
    const vec c = f * (kept(args, row) * load_some(old, some)) + i * g;
    const vec y = o * vtanh(c);
    store_some(gates, i, some);
    store_some(gates + p->hidden, f, some);
    store_some(gates + 2 * p->hidden, o, some);
    store_some(gates + 3 * p->hidden, g, some);
    store_some(p->cells + cells_behind(args, own.at), c, some);
    store_some(p->y + own.at, y, some);
    hand_on(args, row, own, y, p->before);
    if (ended(args, row)) {
        store_some(p->cells + cells_behind(args, own.at), load_some(old, some), some);
        store_some(p->y + own.at, splat(0), some);
        hand_on(args, row, own, load_some(p->before + own.at, some), p->before);
    }
}

static void lstm_run(const void *args, int64_t part, float *sums) {
    const lstm_args *p = args;
    const Sequences own = own_sequences(args, part);
    const int64_t state = own.first * p->hidden, first = row_at(args, 0) * p->hidden + state;
    take_state(FURTHER(p->c0, state), p->cells + cells_before(args, first), own.count * p->hidden);
    keep_state(args, own, FURTHER(p->h0, state), p->before + first);
    const Factors before = {p->before, p->hidden, p->packed}, inputs = {p->x, p->inputs, p->packed_x};
    for (int64_t step = 0; step < p->steps; step++)
        for_sums(&before, p->x ? &inputs : NULL, row_at(args, step) + own.first, own.count, p->hidden, LSTM_GATES,
                 LSTM_GATES_AT_ONCE, sums, lstm_units, p);
}

/* The way back. The workspace holds the gradients of h and c of the part's sequences, (count, hidden) each: at first
   those of the state behind the last step, then what each step hands to the one before, without cont. */

static Demand lstm_dz_demand(const void *args) {
    const lstm_dz_args *p = args;
    return (Demand){p->parts, 2 * most_state(args)};
}

/* The gradient of the gates of some units of a row, and of their cells at the step before; dh is left to be added to. */
INLINE void lstm_units_back(const lstm_dz_args *p, int64_t row, int64_t unit, float *dh, float *dc) {
    const Units own = units_of(row, unit, p->hidden, LSTM_GATES);
    const Walk *w = (const void *)p;
    const int64_t some = own.count;
    const float keep = kept(w, row), later = kept_on(w, row);
    float *dz = p->dz + own.gate;
    if (ended(w, row)) {
        UNROLL for (int gate = 0; gate < LSTM_GATES; gate++) store_some(dz + gate * p->hidden, splat(0), some);
        store_some(dh, later * load_some(dh, some), some);
        store_some(dc, later * load_some(dc, some), some);
        return;
    }
    const float *gates = p->gates + own.gate;
    const vec i = load_some(gates, some), f = load_some(gates + p->hidden, some);
    const vec o = load_some(gates + 2 * p->hidden, some), g = load_some(gates + 3 * p->hidden, some);
    const vec tanh_c = vtanh(load_some(p->cells + cells_behind(w, own.at), some));
    const vec up = load_some(p->dy + own.at, some) + later * load_some(dh, some);
    const vec down = later * load_some(dc, some) + up * o * (1 - tanh_c * tanh_c);
    store_some(dz, down * g * i * (1 - i), some);
    store_some(dz + p->hidden, down * (keep * load_some(p->cells + cells_before(w, own.at), some)) * f * (1 - f), some);
    store_some(dz + 2 * p->hidden, up * tanh_c * o * (1 - o), some);
    store_some(dz + 3 * p->hidden, down * i * (1 - g * g), some);
    store_some(dc, down * f, some);
    store_some(dh, splat(0), some);
}

static void lstm_dz_run(const void *args, int64_t part, float *work) {
    const lstm_dz_args *p = args;
    const Sequences own = own_sequences(args, part);
    const int64_t state = own.first * p->hidden, size = own.count * p->hidden, width = LSTM_GATES * p->hidden;
    float *dh = work, *dc = work + size;
    take_state(FURTHER(p->dh, state), dh, size);
    take_state(FURTHER(p->dc, state), dc, size);
    for (int64_t step = p->steps - 1; step >= 0; step--) {
        const int64_t row = row_at(args, step) + own.first;
        for (int64_t n = 0; n < own.count; n++)
            for (int64_t unit = 0; unit < p->hidden; unit += LANES) {
                const int64_t at = n * p->hidden + unit;
                lstm_units_back(p, row + n, unit, dh + at, dc + at);
            }
        if (step || p->dh0)
            packed_product(p->dz + row * width, width, p->packed, dh, p->hidden, own.count, width, p->hidden, 1);
    }
    if (p->dh0) keep_state(args, own, dh, p->dh0 + state);
    if (p->dc0) keep_state(args, own, dc, p->dc0 + state);
}
