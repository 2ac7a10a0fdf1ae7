/* uniform: numbers in [0, 1), by splitmix64 (Steele et al. 2014). Element i of the row-major order is hashed from key +
   (i + 1) * GOLDEN, whoever computes it. In memory the array is lines of `columns` elements, `rows` of them in each of
   several blocks; in row-major order a block's columns come first, so that the channels may lie last. */

#define FIELDS_uniform(A, W, L, C, I, F) A(y) W(key) I(size) I(rows) I(columns) I(parts)
DECLARE(uniform)

static Demand uniform_demand(const void *args) { return (Demand){((const uniform_args *)args)->parts, 0}; }

static const uint64_t GOLDEN = 0x9E3779B97F4A7C15u;

INLINE uint64_t mixed(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* 24 bits, which fit a float32 exactly. */
INLINE float from_bits(uint64_t z) { return (float)(int32_t)(z >> 40) * 0x1p-24f; }

static void uniform_run(const void *args, int64_t part, float *work) {
    const uniform_args *p = args;
    const uint64_t key = (uint32_t)p->key[0] | (uint64_t)(uint32_t)p->key[1] << 32;
    const int64_t lines = ceil_div(p->size, p->columns);
    for (int64_t line = lines * part / p->parts; line < lines * (part + 1) / p->parts; line++) {
        const int64_t block = line / p->rows, row = line % p->rows, at = line * p->columns;
        const uint64_t first = key + (uint64_t)(block * p->rows * p->columns + row + 1) * GOLDEN;
        const uint64_t step = (uint64_t)p->rows * GOLDEN;
        const int64_t some = smaller(p->columns, p->size - at);
        for (int64_t i = 0; i < some; i++) p->y[at + i] = from_bits(mixed(first + (uint64_t)i * step));
    }
}
