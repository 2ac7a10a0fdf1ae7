/* Connectionist temporal classification; kernels/ctc.py says what is computed. A part is a sequence from its first step to
   its last, and a vector holds states. `step` and `row` are the floats from step to step and from sequence to sequence
   of log_prob and dx; lengths are 0 for a sequence that is left out. */

#define FIELDS_ctc(A, W, L, C, I, F)                                                                           \
    A(log_prob) W(label) W(lengths) W(counts) A(alpha) A(cost) A(dcost) A(dx)                                  \
    I(steps) I(sequences) I(classes) I(longest) I(blank) I(per_label) I(step) I(row)
DECLARE(ctc)

static const float CTC_NEVER = -1e30f; /* the logarithm of what cannot be */

/* The floats of a row of states, with room for those that stand before the first or behind the last. */
INLINE int64_t ctc_room(const ctc_args *p) { return whole_vectors(2 * p->longest + 1) + 2 * LANES; }

static Demand ctc_demand(const void *args) {
    const ctc_args *p = args;
    return (Demand){p->sequences, 4 * ctc_room(p)};
}

/* A sequence, and the rows of its workspace. */
typedef struct {
    const ctc_args *p;
    int64_t n, states, length;
    float share; /* 1, or 1 / the number of labels */
    float *skip, *emit, *row, *next;
} Ctc;

INLINE int64_t class_of(const Ctc *c, int64_t s) { return s % 2 ? c->p->label[c->n * c->p->longest + s / 2] : c->p->blank; }
INLINE const float *ctc_scores(const Ctc *c, int64_t t) { return c->p->log_prob + t * c->p->step + c->n * c->p->row; }
INLINE float *ctc_alpha(const Ctc *c, int64_t t) {
    return c->p->alpha + (t * c->p->sequences + c->n) * (2 * c->p->longest + 1);
}

/* skip is 0 for the states that can be reached from two before, for states from -2 on; all rows are NEVER. */
static Ctc ctc_begin(const ctc_args *p, int64_t n, float *work) {
    const int64_t room = ctc_room(p);
    for (int64_t i = 0; i < 4 * room; i++) work[i] = CTC_NEVER;
    Ctc c = {p, n, 2 * (int64_t)p->counts[n] + 1, p->lengths[n], 1, work, work + room, work + 2 * room, work + 3 * room};
    if (p->per_label) c.share = 1.0f / (float)larger(1, p->counts[n]);
    for (int64_t s = 3; s < c.states; s += 2)
        if (class_of(&c, s) != class_of(&c, s - 2)) c.skip[s + 2] = 0;
    return c;
}

INLINE void ctc_emissions(const Ctc *c, int64_t t) {
    const float *scores = ctc_scores(c, t);
    for (int64_t s = 0; s < c->states; s++) c->emit[s] = scores[class_of(c, s)];
}

/* log(exp(a) + exp(b) + exp(c)) */
INLINE vec log_of_sum(vec a, vec b, vec c) {
    const vec most = vmaximum(vmaximum(a, b), c);
    return most + vlog(vexp(a - most) + vexp(b - most) + vexp(c - most));
}

/* Makes the largest of a row of states 0, and NEVER of what stands behind them; returns what it was. */
static float ctc_shift(const Ctc *c, float *row) {
    vec most = splat(CTC_NEVER);
    for (int64_t s = 0; s < c->states; s += LANES)
        most = vmaximum(most, padded(load(row + s), smaller(LANES, c->states - s), CTC_NEVER));
    const float top = largest_lane(most);
    for (int64_t s = 0; s < c->states; s += LANES)
        store(row + s, padded(load(row + s) - top, smaller(LANES, c->states - s), CTC_NEVER));
    return top;
}

static void ctc_run(const void *args, int64_t n, float *work) {
    const ctc_args *p = args;
    const Ctc c = ctc_begin(p, n, work);
    float *now = c.row + 2; /* so that two states that are never there stand before the first */
    double total = 0;
    for (int64_t t = 0; t < p->steps; t++) {
        ctc_emissions(&c, t);
        for (int64_t s = 0; s < c.states; s += LANES) {
            vec ways = splat(CTC_NEVER);
            if (t)
                ways = log_of_sum(load(now + s), load(now + s - 1), load(now + s - 2) + load(c.skip + s + 2));
            else if (!s)
                ways = padded(splat(0), 2, CTC_NEVER);
            store(c.next + s, ways + load(c.emit + s));
        }
        const float top = ctc_shift(&c, c.next);
        if (t < c.length) total += top;
        float *alpha = ctc_alpha(&c, t);
        copy_floats(now, c.next, c.states);
        copy_floats(alpha, c.next, c.states);
        for (int64_t s = c.states; s < 2 * p->longest + 1; s++) alpha[s] = CTC_NEVER;
        if (t + 1 == c.length) {
            const vec last = splat(now[c.states - 1]), before = splat(c.states > 1 ? now[c.states - 2] : CTC_NEVER);
            total += log_of_sum(last, before, splat(CTC_NEVER))[0];
        }
    }
    p->cost[n] = c.length ? (float)-total * c.share : 0;
}

/* row = beta of a step from that of the step after. */
static void ctc_leave(const Ctc *c, int64_t t) {
    ctc_emissions(c, t + 1);
    for (int64_t s = 0; s < c->states; s += LANES) {
        const int64_t some = smaller(LANES, c->states - s);
        store(c->next + s, padded(load(c->row + s) + load(c->emit + s), some, CTC_NEVER));
    }
    for (int64_t s = 0; s < c->states; s += LANES) {
        const vec two = load(c->next + s + 2) + load(c->skip + s + 4);
        store(c->row + s, log_of_sum(load(c->next + s), load(c->next + s + 1), two));
    }
}

/* dx of a step: the probabilities, less the share that each state has in all alignments. */
static void ctc_slope(const Ctc *c, int64_t t, float share) {
    const ctc_args *p = c->p;
    const float *scores = ctc_scores(c, t), *alpha = ctc_alpha(c, t);
    float *dx = p->dx + t * p->step + c->n * p->row;
    vec sum = splat(0);
    for (int64_t s = 0; s < c->states; s += LANES) {
        const int64_t some = smaller(LANES, c->states - s);
        store(c->emit + s, padded(load_some(alpha + s, some) + load(c->row + s), some, CTC_NEVER));
    }
    ctc_shift(c, c->emit);
    for (int64_t s = 0; s < c->states; s += LANES) {
        const vec e = padded(vexp(load(c->emit + s)), smaller(LANES, c->states - s), 0);
        store(c->emit + s, e);
        sum += e;
    }
    const float part = share / sum_of_lanes(sum);
    for (int64_t i = 0; i < p->classes; i += LANES) {
        const int64_t some = smaller(LANES, p->classes - i);
        store_some(dx + i, vexp(load_some(scores + i, some)) * share, some);
    }
    for (int64_t s = 0; s < c->states; s++) dx[class_of(c, s)] -= c->emit[s] * part;
}

static void ctc_dx_run(const void *args, int64_t n, float *work) {
    const ctc_args *p = args;
    const Ctc c = ctc_begin(p, n, work);
    for (int64_t t = p->steps - 1; t >= c.length; t--) clear_floats(p->dx + t * p->step + n * p->row, p->classes);
    for (int64_t t = c.length - 1; t >= 0; t--) {
        if (t + 1 == c.length) {
            c.row[c.states - 1] = 0;
            if (c.states > 1) c.row[c.states - 2] = 0;
        } else {
            ctc_leave(&c, t);
            ctc_shift(&c, c.row);
        }
        ctc_slope(&c, t, *p->dcost * c.share);
    }
}
