/* attention: scaled dot-product attention. A part is one head of one sample, from the products of its queries with its
   keys to the result, so that its scores stay in a core's cache. Where it is causal, queries go in bands, and a band has
   nothing to do with the keys behind its last query.

   A head's queries are rows of `depth` floats, `q_row` apart, those of the next sample `q_sample` further; likewise keys
   and values (k_), and the result and its gradient (y_). Gradients lie as what they are the gradients of. prob: (samples,
   heads, steps, keys). mask: (samples, keys) or NULL. */

#define FIELDS_attention(A, W, L, C, I, F)                                                                     \
    A(q) A(k) A(v) A(prob) A(y) W(mask) A(dy) A(dq) A(dk) A(dv) I(samples) I(heads) I(steps) I(keys) I(depth)  \
    I(q_sample) I(q_row) I(k_sample) I(k_row) I(y_sample) I(y_row) I(causal) F(scale)
DECLARE(attention)

static Demand attention_demand(const void *args) {
    const attention_args *t = args;
    const int64_t packed = larger(t->depth * whole_vectors(t->keys), t->keys * whole_vectors(t->depth));
    return (Demand){t->samples * t->heads, packed + whole_vectors(t->steps * t->keys)};
}

/* One head: where its rows begin. */
typedef struct {
    const float *q, *k, *v, *dy;
    float *y, *dq, *dk, *dv, *prob;
    const int32_t *mask;
} Head;

INLINE Head head_of(const attention_args *t, int64_t part) {
    const int64_t sample = part / t->heads, at = part % t->heads * t->depth;
    const int64_t q = sample * t->q_sample + at, k = sample * t->k_sample + at, y = sample * t->y_sample + at;
    return (Head){
        FURTHER(t->q, q),  FURTHER(t->k, k),  FURTHER(t->v, k),  FURTHER(t->dy, y), FURTHER(t->y, y),
        FURTHER(t->dq, q), FURTHER(t->dk, k), FURTHER(t->dv, k), FURTHER(t->prob, part * t->steps * t->keys),
        FURTHER(t->mask, sample * t->keys),
    };
}

/* Which of some scores of a query count. */
INLINE ivec counting(const int32_t *mask, int64_t at, int64_t some) {
    return mask ? (ivec)((ivec)load_some((const float *)(mask + at), some) != 0) : lanes_before(some);
}

/* The softmax, in its place, of the first `count` scores of a query, and 0 for the rest; all 0 if none counts. */
static void attend(float *row, const int32_t *mask, int64_t count, int64_t keys, float scale) {
    vec most = splat(-3.40282347e38f), sum = splat(0);
    EACH_VECTOR(count, {
        const vec x = load_some(row + i, some) * scale;
        store_some(row + i, x, some);
        most = vmaximum(most, choose(counting(mask, i, some), x, most));
    })
    const float top = largest_lane(most);
    EACH_VECTOR(count, { /* the others must not come near exp: it takes its time for what is next to nothing */
        const ivec counts = counting(mask, i, some);
        const vec e = choose(counts, vexp(choose(counts, load_some(row + i, some) - top, splat(0))), splat(0));
        store_some(row + i, e, some);
        sum += e;
    })
    const float total = sum_of_lanes(sum), share = total > 0 ? 1 / total : 0;
    EACH_VECTOR(count, { store_some(row + i, load_some(row + i, some) * share, some); })
    clear_floats(row + count, keys - count);
}

/* How many queries a band has, and how many keys come before the query behind it. */
INLINE int64_t band_of(const attention_args *t) { return t->causal ? LANES : t->steps; }
INLINE int64_t keys_before(const attention_args *t, int64_t step) {
    return t->causal ? larger(0, smaller(t->keys, step + t->keys - t->steps)) : t->keys;
}

static void attention_run(const void *args, int64_t part, float *packed) {
    const attention_args *t = args;
    const Head h = head_of(t, part);
    pack_panels(h.k, 1, t->k_row, t->depth, t->keys, packed);
    for (int64_t step = 0; step < t->steps; step += band_of(t)) {
        const int64_t rows = smaller(band_of(t), t->steps - step);
        packed_part(h.q + step * t->q_row, t->q_row, (Packed){packed, t->depth, t->keys}, h.prob + step * t->keys,
                    t->keys, rows, t->depth, keys_before(t, step + rows), 0);
    }
    for (int64_t step = 0; step < t->steps; step++)
        attend(h.prob + step * t->keys, h.mask, keys_before(t, step + 1), t->keys, (float)t->scale);
    pack_panels(h.v, t->k_row, 1, t->keys, t->depth, packed);
    for (int64_t step = 0; step < t->steps; step += band_of(t)) {
        const int64_t rows = smaller(band_of(t), t->steps - step);
        packed_part(h.prob + step * t->keys, t->keys, (Packed){packed, t->keys, t->depth}, h.y + step * t->y_row,
                    t->y_row, rows, keys_before(t, step + rows), t->depth, 0);
    }
}

/* The gradient by the first `count` scores of a query from that by its probabilities, in its place, and 0 for the
   rest. */
static void attend_dx(const float *prob, float *slope, int64_t count, int64_t keys, float scale) {
    vec sum = splat(0);
    EACH_VECTOR(count, { sum += load_some(prob + i, some) * load_some(slope + i, some); })
    const float total = sum_of_lanes(sum);
    EACH_VECTOR(count, {
        store_some(slope + i, load_some(prob + i, some) * (load_some(slope + i, some) - total) * scale, some);
    })
    clear_floats(slope + count, keys - count);
}

/* out (keys, depth) = a.T @ b, of a (steps, keys) and b (steps, depth); where it is causal, a is 0 for the steps before
   a key. */
static void by_keys(const attention_args *t, const float *a, const float *b, int64_t ldb, float *out) {
    const int64_t band = t->causal ? LANES : t->keys;
    for (int64_t key = 0; key < t->keys; key += band) {
        const int64_t first = t->causal ? smaller(t->steps, larger(0, key + t->steps - t->keys)) : 0;
        const ColumnBlock whole = {.lines = 1, .depth = t->steps - first, .a = a + first * t->keys + key,
                                   .step = t->keys, .b = b + first * ldb, .ldb = ldb, .out = out + key * t->k_row,
                                   .ldout = t->k_row, .rows = smaller(band, t->keys - key), .columns = t->depth,
                                   .set = 1};
        run_columns(&whole);
    }
}

static void attention_dx_run(const void *args, int64_t part, float *work) {
    const attention_args *t = args;
    const Head h = head_of(t, part);
    float *slope = work, *packed = work + whole_vectors(t->steps * t->keys);
    pack_panels(h.v, 1, t->k_row, t->depth, t->keys, packed);
    for (int64_t step = 0; step < t->steps; step += band_of(t)) {
        const int64_t rows = smaller(band_of(t), t->steps - step);
        packed_part(h.dy + step * t->y_row, t->y_row, (Packed){packed, t->depth, t->keys}, slope + step * t->keys,
                    t->keys, rows, t->depth, keys_before(t, step + rows), 0);
    }
    for (int64_t step = 0; step < t->steps; step++)
        attend_dx(h.prob + step * t->keys, slope + step * t->keys, keys_before(t, step + 1), t->keys,
                  (float)t->scale);
    pack_panels(h.k, t->k_row, 1, t->keys, t->depth, packed);
    for (int64_t step = 0; step < t->steps; step += band_of(t)) {
        const int64_t rows = smaller(band_of(t), t->steps - step);
        packed_part(slope + step * t->keys, t->keys, (Packed){packed, t->keys, t->depth}, h.dq + step * t->q_row,
                    t->q_row, rows, keys_before(t, step + rows), t->depth, 0);
    }
    by_keys(t, slope, h.q, t->q_row, h.dk);
    by_keys(t, h.prob, h.dy, t->y_row, h.dv);
}
