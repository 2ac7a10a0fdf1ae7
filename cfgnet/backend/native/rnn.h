/* Recurrent layers without gates: h = tanh(sum), or max(sum, 0) with relu. */

#define FIELDS_rnn(A, W, L, C, I, F)                                                                           \
    FIELDS_walk(A, W, L, C, I, F) A(packed) A(y) A(before) A(h0) I(relu)
DECLARE(rnn)
#define FIELDS_rnn_dz(A, W, L, C, I, F)                                                                        \
    FIELDS_walk(A, W, L, C, I, F) A(dy) A(y) A(packed) A(dz) A(dh) A(dh0) I(relu)
DECLARE(rnn_dz)

static Demand rnn_demand(const void *args) {
    const rnn_args *p = args;
    return (Demand){p->parts, LANES * MOST_ROWS};
}

/* Some units of a row, from what the state before contributes to them. */
INLINE void rnn_units(const void *args, int64_t row, int64_t unit, const float *sums) {
    const rnn_args *p = args;
    const Units own = units_of(row, unit, p->hidden, 1);
    const vec z = load(sums) + load_some(p->y + own.at, own.count);
    vec y = p->relu ? vmaximum(z, splat(0)) : vtanh(z), state = y;
    if (ended(args, row)) {
        y = splat(0);
        state = load_some(p->before + own.at, own.count);
    }
    store_some(p->y + own.at, y, own.count);
    hand_on(args, row, own, state, p->before);
}

static void rnn_run(const void *args, int64_t part, float *sums) {
    const rnn_args *p = args;
    const Sequences own = own_sequences(args, part);
    const int64_t first = row_at(args, 0) + own.first;
    const Factors state = {p->before, p->hidden, p->packed};
    keep_state(args, own, FURTHER(p->h0, own.first * p->hidden), p->before + first * p->hidden);
    for (int64_t step = 0; step < p->steps; step++)
        for_sums(&state, NULL, row_at(args, step) + own.first, own.count, p->hidden, 1, 1, sums, rnn_units, p);
}

/* The way back. The workspace holds the gradient of h of the part's sequences, (count, hidden): at first that of the
   state behind the last step, then what each step hands to the one before, without cont. */

static Demand rnn_dz_demand(const void *args) {
    const rnn_dz_args *p = args;
    return (Demand){p->parts, most_state(args)};
}

/* The gradient of the sums of some units of a row; dh is left to be added to. */
INLINE void rnn_units_back(const rnn_dz_args *p, int64_t row, int64_t unit, float *dh) {
    const Units own = units_of(row, unit, p->hidden, 1);
    const Walk *w = (const void *)p;
    const vec y = load_some(p->y + own.at, own.count), later = kept_on(w, row) * load_some(dh, own.count);
    const vec up = load_some(p->dy + own.at, own.count) + later;
    vec slope = 1 - y * y;
    if (p->relu) slope = truth(y > 0.0f);
    vec dz = up * slope, rest = splat(0);
    if (ended(w, row)) {
        dz = splat(0);
        rest = later;
    }
    store_some(p->dz + own.at, dz, own.count);
    store_some(dh, rest, own.count);
}

static void rnn_dz_run(const void *args, int64_t part, float *dh) {
    const rnn_dz_args *p = args;
    const Sequences own = own_sequences(args, part);
    const int64_t state = own.first * p->hidden, size = own.count * p->hidden;
    take_state(FURTHER(p->dh, state), dh, size);
    for (int64_t step = p->steps - 1; step >= 0; step--) {
        const int64_t row = row_at(args, step) + own.first;
        for (int64_t n = 0; n < own.count; n++)
            for (int64_t unit = 0; unit < p->hidden; unit += LANES)
                rnn_units_back(p, row + n, unit, dh + n * p->hidden + unit);
        if (step || p->dh0)
            packed_product(p->dz + row * p->hidden, p->hidden, p->packed, dh, p->hidden, own.count, p->hidden,
                           p->hidden, 1);
    }
    if (p->dh0) keep_state(args, own, dh, p->dh0 + state);
}
