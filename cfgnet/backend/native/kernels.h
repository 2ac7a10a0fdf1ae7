/* All kernels, for the set of instructions whose file includes this. */
#include "call.h"

#include "vec.h"

#include "blocks.h"
#include "mathvec.h"

#include "elementwise.h"

#include "convolution.h"

static const Kernel KERNELS[] = {
    ENTRY(map), ENTRY(conv), ENTRY(turn), ENTRY(conv_dweight), ENTRY(gather),
};
enum { KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS };
