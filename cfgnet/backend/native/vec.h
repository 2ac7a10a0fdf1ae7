/* Vectors of LANES float32, in GCC's and clang's vector extensions; each set of instructions includes this once.

   A vector may lie at any address (aligned(4)) and over any float (may_alias). */
#define VEC __attribute__((vector_size(4 * LANES), aligned(4), may_alias))
typedef float vec VEC;
typedef int32_t ivec VEC;
enum { LINE = 16 }; /* floats of a line of a cache */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")

/* What lies `at` elements on in an array that may be missing. */
#define FURTHER(array, at) ((array) ? (array) + (at) : NULL)

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }

/* The same number in all lanes; a difference of a number and a vector is what compilers know to do in one instruction. */
INLINE vec splat(float x) { return x - (vec){0}; }

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

/* Runs a statement for each vector of `size` elements: those from i on, LANES of them or, in the end, only `some`. */
#define EACH_VECTOR(size, ...)                                                                                 \
    {                                                                                                          \
        int64_t i = 0;                                                                                         \
        for (; i + LANES <= (size); i += LANES) {                                                              \
            const int64_t some = LANES;                                                                        \
            __VA_ARGS__                                                                                        \
        }                                                                                                      \
        if (i < (size)) {                                                                                      \
            const int64_t some = (size)-i;                                                                     \
            __VA_ARGS__                                                                                        \
        }                                                                                                      \
    }

INLINE vec choose(ivec condition, vec yes, vec no) {
    return (vec)(((ivec)yes & condition) | ((ivec)no & ~condition));
}

/* The larger and the smaller of each two lanes; the second if either is nan. */
#ifndef LARGER
#define LARGER(a, b) choose((a) > (b), a, b)
#define SMALLER(a, b) choose((a) < (b), a, b)
#endif

/* The lanes of two vectors by turns: of their lower halves, and of their upper halves. */
#if LANES == 16
#define LOW_LANES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_LANES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_LANES 0, 4, 1, 5
#define HIGH_LANES 2, 6, 3, 7
#endif
#ifdef __clang__
INLINE vec zip_low(vec a, vec b) { return __builtin_shufflevector(a, b, LOW_LANES); }
INLINE vec zip_high(vec a, vec b) { return __builtin_shufflevector(a, b, HIGH_LANES); }
#else
INLINE vec zip_low(vec a, vec b) { return __builtin_shuffle(a, b, (ivec){LOW_LANES}); }
INLINE vec zip_high(vec a, vec b) { return __builtin_shuffle(a, b, (ivec){HIGH_LANES}); }
#endif

/* Whether a condition, whose lanes are 0 or -1, holds in all of them: each step joins a lane with one half of all lanes
   further on. */
INLINE int all_lanes(ivec condition) {
    vec all = (vec)condition;
    UNROLL for (int width = LANES; width > 1; width /= 2)
        all = (vec)((ivec)zip_low(all, all) & (ivec)zip_high(all, all));
    return ((ivec)all)[0];
}

INLINE float sum_of_lanes(vec v) {
    UNROLL for (int width = LANES; width > 1; width /= 2) v = zip_low(v, v) + zip_high(v, v);
    return v[0];
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
INLINE int64_t whole_vectors(int64_t n) { return ceil_div(n, LANES) * LANES; }
