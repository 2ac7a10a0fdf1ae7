/* The kernels for AVX2 with FMA: 16 registers of 8 floats. */
#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define LANES 8
#define REGISTERS 16
#include "kernels.h"

static int usable(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

const Isa isa_avx2 = {"avx2", LANES, usable, KERNELS, KERNEL_COUNT};
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
