/* Vectors of LANES float32, in GCC's and clang's vector extensions; each set of instructions includes this once.

   A vector may lie at any address (aligned(4)) and over any float (may_alias). */
#define VEC __attribute__((vector_size(4 * LANES), aligned(4), may_alias))
typedef float vec VEC;
typedef int32_t ivec VEC;
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }

INLINE vec splat(float x) {
    vec v;
    UNROLL for (int i = 0; i < LANES; i++) v[i] = x;
    return v;
}

/* The first `n` lanes of memory, 0 < n <= LANES; the others are zero. */
INLINE vec load_some(const float *p, int64_t n) {
    if (n == LANES) return load(p);
#ifdef MASKED
    return MASKED_LOAD(p, n);
#else
    vec v = {0};
    for (int64_t i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}

INLINE void store_some(float *p, vec v, int64_t n) {
    if (n == LANES) {
        store(p, v);
        return;
    }
#ifdef MASKED
    MASKED_STORE(p, v, n);
#else
    for (int64_t i = 0; i < n; i++) p[i] = v[i];
#endif
}

INLINE vec choose(ivec condition, vec yes, vec no) {
    return (vec)(((ivec)yes & condition) | ((ivec)no & ~condition));
}
INLINE vec vmax(vec a, vec b) { return choose(a > b, a, b); }
INLINE vec vmin(vec a, vec b) { return choose(a < b, a, b); }

INLINE float lane_sum(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
INLINE int64_t whole_vectors(int64_t n) { return ceil_div(n, LANES) * LANES; }
