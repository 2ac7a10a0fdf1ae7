/* The kernels for what every processor of an architecture has: SSE2 on x86-64, NEON on 64-bit ARM. */
#define LANES 4
#ifdef __aarch64__
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#include "kernels.h"

static int usable(void) { return 1; }

const Isa isa_baseline = {"baseline", LANES, usable, KERNELS, KERNEL_COUNT};
