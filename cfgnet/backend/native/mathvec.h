/* exp, log and their relatives on vectors, within a few units in the last place of float32.

   The argument is reduced as Cody and Waite (1980) do it, and the rest is a series. */

typedef struct {
    vec n, small; /* exp(x) = 2^n * (1 + small) */
} Exp;

INLINE vec limited(vec x, float least, float most) { return SMALLER(splat(most), LARGER(splat(least), x)); }

/* For n from -127, which gives zero, to 128, which gives infinity. */
INLINE vec power_of_two(vec n) { return (vec)((__builtin_convertvector(n, ivec) + 127) << 23); }

static const float ROUND = 12582912.0f; /* 1.5 * 2^23: adding it leaves whole numbers */

INLINE Exp exp_parts(vec x) {
    vec n = (x * 1.44269504f + ROUND) - ROUND;
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two pieces */
    vec series = 1.0f / 720 + r * (1.0f / 5040);
    series = 1.0f / 120 + r * series;
    series = 1.0f / 24 + r * series;
    series = 1.0f / 6 + r * series;
    series = 0.5f + r * series;
    return (Exp){n, r + r * r * series};
}

/* The two factors of 2^n, because 2^n itself may be too small or too large. */
INLINE vec first_half(vec n) { return (n * 0.5f + ROUND) - ROUND; }

/* x * 2^n. */
INLINE vec scaled(vec x, vec n) {
#ifdef SCALED
    return SCALED(x, n);
#else
    const vec half = first_half(n);
    return x * power_of_two(half) * power_of_two(n - half);
#endif
}

INLINE vec vexp(vec x) {
    Exp e = exp_parts(limited(x, -104.0f, 89.0f));
    return scaled(1.0f + e.small, e.n);
}

INLINE vec vexpm1(vec x) {
    Exp e = exp_parts(limited(x, -104.0f, 89.0f));
    vec half = first_half(e.n), part = power_of_two(half), more = power_of_two(e.n - half), scale = part * more;
    vec large = (part + part * e.small) * more - 1.0f;
    return choose(scale < 1e6f, scale * e.small + (scale - 1.0f), large);
}

/* (exp(2x) - 1) / (exp(2x) + 1), where it is not 1 or -1. */
INLINE vec vtanh(vec x) {
    Exp e = exp_parts(2.0f * limited(x, -20.0f, 20.0f));
    vec scale = power_of_two(e.n), less = scale * e.small + (scale - 1.0f);
    return less / (less + 2.0f);
}

/* x p(x^2) / q(x^2), fitted to erf(x) / x up to where erf is 1 in float32; off by 4e-7 at most. */
INLINE vec verf(vec x) {
    x = limited(x, -3.925f, 3.925f);
    const vec t = x * x;
    vec p = 1.42157704e-4f + t * (-1.95651114e-6f + t * 1.98693328e-8f);
    p = 1.12837911f + t * (0.200353786f + t * (5.06296866e-2f + t * (3.71867744e-3f + t * p)));
    const vec q = 1.0f + t * (0.510890543f + t * (0.115175262f + t * (1.43890325e-2f + t * 9.5984037e-4f)));
    return limited(x * p / q, -1.0f, 1.0f);
}

INLINE vec vsigmoid(vec x) {
    return 1.0f / (1.0f + vexp(-x));
}

INLINE vec vlog(vec x) {
    ivec tiny = x < 1.17549435e-38f;
    vec y = choose(tiny, x * 8388608.0f, x);
    ivec bits = (ivec)y - 0x3f3504f3; /* so that the mantissa lies between sqrt(1/2) and sqrt(2) */
    vec exponent = __builtin_convertvector(bits >> 23, vec) - choose(tiny, splat(23.0f), splat(0.0f));
    vec f = (vec)((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    vec s = f / (2.0f + f), square = s * s; /* log(1 + f) = 2 atanh(s) */
    vec series = 2.0f / 5 + square * (2.0f / 7 + square * (2.0f / 9 + square * (2.0f / 11)));
    vec log = 2.0f * s + s * square * (2.0f / 3 + square * series);
    log = exponent * 0.693359375f + (log - exponent * 2.12194440e-4f);
    log = choose(x == __builtin_inff(), x, log);
    log = choose(x == 0.0f, splat(-__builtin_inff()), log);
    return choose(x >= 0.0f, log, splat(__builtin_nanf("")));
}

INLINE vec vlog1p(vec x) {
    vec u = 1.0f + x;
    vec log = vlog(u) * (x / (u - 1.0f)); /* what rounding took from u, put right */
    return choose(u == 1.0f, x, choose(u == __builtin_inff(), u, choose(u == 0.0f, vlog(u), log)));
}

/* Lane by lane, out of the way: what exp and log do not do is rare. */
static __attribute__((noinline)) void power_of_any(vec *result, const vec *x, const vec *y) {
    for (int i = 0; i < LANES; i++)
        if (!((*x)[i] > 0)) (*result)[i] = __builtin_powf((*x)[i], (*y)[i]);
}

INLINE vec vpower(vec x, vec y) {
    vec result = vexp(y * vlog(x));
    if (!all_lanes(x > 0.0f)) power_of_any(&result, &x, &y);
    return result;
}

INLINE vec vsqrt(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
}

INLINE vec vabs(vec x) { return (vec)((ivec)x & 0x7fffffff); }
INLINE vec vsign(vec x) { return choose(x > 0.0f, splat(1), choose(x < 0.0f, splat(-1), 0.0f * x)); }
INLINE vec vtrunc(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = __builtin_truncf(x[i]);
    return x;
}
/* As numpy has it: nan if either is. */
INLINE vec vmaximum(vec a, vec b) { return choose(a != a, a, LARGER(a, b)); }
INLINE vec vminimum(vec a, vec b) { return choose(a != a, a, SMALLER(a, b)); }
INLINE vec truth(ivec condition) { return choose(condition, splat(1), splat(0)); }
