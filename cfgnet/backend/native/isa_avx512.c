/* The kernels for AVX-512: 32 registers of 16 floats. */
#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#include <immintrin.h>

#define LANES 16
#define REGISTERS 32
/* What vector extensions lack: to read and write the ends of rows, x * 2^n, and the larger and the smaller of two lanes,
   the second if either is nan. */
#define MASKED
#define MASKED_LOAD(p, n) ((vec)_mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), p))
#define MASKED_STORE(p, v, n) _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1), (__m512)(v))
#define LARGER(a, b) ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define SMALLER(a, b) ((vec)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define SCALED(x, n) ((vec)_mm512_scalef_ps((__m512)(x), (__m512)(n)))
#include "kernels.h"

static int usable(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const Isa isa_avx512 = {"avx512", LANES, usable, KERNELS, KERNEL_COUNT};
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
