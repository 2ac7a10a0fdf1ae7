/* Gated recurrent units: the gates r, z, n, and `inner`, in which the reset r meets the state before.

   Where the reset comes after the product, n = tanh(.. + r * inner) with inner = before @ weight_n + bias: all gates are
   summed at once, and the weight is packed whole. Where it comes before, n = tanh(.. + inner @ weight_n) with inner =
   r * before: n of a unit needs r of all units, so that a step takes two passes, and the weight of n is packed apart. */

#define FIELDS_gru(A, W, L, C, I, F)                                                                           \
    FIELDS_walk(A, W, L, C, I, F) A(gates) A(packed) A(packed_n) A(bias) A(y) A(inner) A(before) A(h0) I(reset_after)
DECLARE(gru)
#define FIELDS_gru_dz(A, W, L, C, I, F)                                                                        \
    FIELDS_walk(A, W, L, C, I, F) A(dy) A(gates) A(inner) A(before) A(packed) A(packed_n) A(dz) A(dinner)      \
    A(dh) A(dh0) I(reset_after)
DECLARE(gru_dz)

enum { GRU_GATES = 3 };

static Demand gru_demand(const void *args) {
    const gru_args *p = args;
    return (Demand){p->parts, GRU_GATES * LANES * MOST_ROWS};
}

/* y = (1 - z) * n + z * before, and what of it goes into the next step. */
INLINE void gru_put_out(const gru_args *p, int64_t row, Units own, vec z, vec n) {
    const Walk *w = (const void *)p;
    const vec before = load_some(p->before + own.at, own.count), y = n + z * (before - n);
    const int here = !ended(w, row);
    store_some(p->y + own.at, here ? y : splat(0), own.count);
    hand_on(w, row, own, here ? y : before, p->before);
}

/* Some units of a row, from the sums of their gates, of which that of n is without the reset. */
INLINE void gru_units(const void *args, int64_t row, int64_t unit, const float *sums) {
    const gru_args *p = args;
    const Units own = units_of(row, unit, p->hidden, GRU_GATES);
    float *r_at = p->gates + own.gate, *z_at = r_at + p->hidden, *n_at = z_at + p->hidden;
    const vec r = vsigmoid(load(sums) + load_some(r_at, own.count));
    const vec z = vsigmoid(load(sums + LANES) + load_some(z_at, own.count));
    const vec inner = load(sums + 2 * LANES) + load_some(p->bias + unit, own.count);
    const vec n = vtanh(load_some(n_at, own.count) + r * inner);
    store_some(r_at, r, own.count);
    store_some(z_at, z, own.count);
    store_some(n_at, n, own.count);
    store_some(p->inner + own.at, inner, own.count);
    gru_put_out(p, row, own, z, n);
}

/* The first pass, from the sums of r and z: they, and what is reset. */
INLINE void gru_reset(const void *args, int64_t row, int64_t unit, const float *sums) {
    const gru_args *p = args;
    const Units own = units_of(row, unit, p->hidden, GRU_GATES);
    float *r_at = p->gates + own.gate, *z_at = r_at + p->hidden;
    const vec r = vsigmoid(load(sums) + load_some(r_at, own.count));
    store_some(r_at, r, own.count);
    store_some(z_at, vsigmoid(load(sums + LANES) + load_some(z_at, own.count)), own.count);
    store_some(p->inner + own.at, r * load_some(p->before + own.at, own.count), own.count);
}

/* The second pass, from the sum of n. */
INLINE void gru_renew(const void *args, int64_t row, int64_t unit, const float *sums) {
    const gru_args *p = args;
    const Units own = units_of(row, unit, p->hidden, GRU_GATES);
    float *z_at = p->gates + own.gate + p->hidden, *n_at = z_at + p->hidden;
    const vec n = vtanh(load(sums) + load_some(n_at, own.count));
    store_some(n_at, n, own.count);
    gru_put_out(p, row, own, load_some(z_at, own.count), n);
}

static void gru_run(const void *args, int64_t part, float *sums) {
    const gru_args *p = args;
    const Sequences own = own_sequences(args, part);
    const int64_t first = row_at(args, 0) + own.first;
    const Factors state = {p->before, p->hidden, p->packed}, inner = {p->inner, p->hidden, p->packed_n};
    keep_state(args, own, FURTHER(p->h0, own.first * p->hidden), p->before + first * p->hidden);
    for (int64_t step = 0; step < p->steps; step++) {
        const int64_t row = row_at(args, step) + own.first;
        if (p->reset_after) {
            for_sums(&state, NULL, row, own.count, p->hidden, GRU_GATES, GRU_GATES, sums, gru_units, p);
        } else {
            for_sums(&state, NULL, row, own.count, p->hidden, 2, 2, sums, gru_reset, p);
            for_sums(&inner, NULL, row, own.count, p->hidden, 1, 1, sums, gru_renew, p);
        }
    }
}

/* The way back. The workspace holds the gradient of h of the part's sequences, (count, hidden): at first that of the
   state behind the last step, then what each step hands to the one before, without cont. */

static Demand gru_dz_demand(const void *args) {
    const gru_dz_args *p = args;
    return (Demand){p->parts, most_state(args)};
}

/* The gradient of z and n of some units of a row, and in dh that of the state before so far as it goes through z; where
   the reset comes after the product, the gradients of r and inner too. */
INLINE void gru_units_back(const gru_dz_args *p, int64_t row, int64_t unit, float *dh) {
    const Units own = units_of(row, unit, p->hidden, GRU_GATES);
    const Walk *w = (const void *)p;
    const float *gates = p->gates + own.gate;
    const vec r = load_some(gates, own.count), z = load_some(gates + p->hidden, own.count);
    const vec n = load_some(gates + 2 * p->hidden, own.count), before = load_some(p->before + own.at, own.count);
    const vec later = kept_on(w, row) * load_some(dh, own.count);
    float *dz = p->dz + own.gate;
    if (ended(w, row)) {
        UNROLL for (int gate = 0; gate < GRU_GATES; gate++) store_some(dz + gate * p->hidden, splat(0), own.count);
        store_some(p->dinner + own.at, splat(0), own.count);
        store_some(dh, later, own.count);
        return;
    }
    const vec up = load_some(p->dy + own.at, own.count) + later;
    const vec dn = up * (1 - z) * (1 - n * n);
    store_some(dz + p->hidden, up * (before - n) * z * (1 - z), own.count);
    store_some(dz + 2 * p->hidden, dn, own.count);
    store_some(dh, up * z, own.count);
    if (p->reset_after) {
        store_some(dz, dn * load_some(p->inner + own.at, own.count) * r * (1 - r), own.count);
        store_some(p->dinner + own.at, dn * r, own.count);
    }
}

/* The gradient of r of some units of a row, and of the state before so far as it goes through the reset, from dinner. */
INLINE void gru_reset_back(const gru_dz_args *p, int64_t row, int64_t unit, float *dh) {
    const Units own = units_of(row, unit, p->hidden, GRU_GATES);
    const vec r = load_some(p->gates + own.gate, own.count), before = load_some(p->before + own.at, own.count);
    const vec dinner = load_some(p->dinner + own.at, own.count);
    store_some(p->dz + own.gate, dinner * before * r * (1 - r), own.count);
    store_some(dh, load_some(dh, own.count) + dinner * r, own.count);
}

static void gru_dz_run(const void *args, int64_t part, float *dh) {
    const gru_dz_args *p = args;
    const Sequences own = own_sequences(args, part);
    const int64_t state = own.first * p->hidden, size = own.count * p->hidden, width = GRU_GATES * p->hidden;
    take_state(FURTHER(p->dh, state), dh, size);
    for (int64_t step = p->steps - 1; step >= 0; step--) {
        const int64_t row = row_at(args, step) + own.first;
        float *dz = p->dz + row * width, *dinner = p->dinner + row * p->hidden;
        for (int64_t n = 0; n < own.count; n++)
            for (int64_t unit = 0; unit < p->hidden; unit += LANES)
                gru_units_back(p, row + n, unit, dh + n * p->hidden + unit);
        if (!p->reset_after) {
            run_rows(dz + 2 * p->hidden, width, p->packed_n, dinner, p->hidden, own.count, p->hidden, p->hidden);
            for (int64_t n = 0; n < own.count; n++)
                for (int64_t unit = 0; unit < p->hidden; unit += LANES)
                    gru_reset_back(p, row + n, unit, dh + n * p->hidden + unit);
        }
        if (!step && !p->dh0) continue;
        packed_product(dz, width, p->packed, dh, p->hidden, own.count, 2 * p->hidden, p->hidden, 1);
        if (p->reset_after)
            packed_product(dinner, p->hidden, p->packed_n, dh, p->hidden, own.count, p->hidden, p->hidden, 1);
    }
    if (p->dh0) keep_state(args, own, dh, p->dh0 + state);
}
