/* All kernels, for the set of instructions whose file includes this. */
#include "call.h"

#include "vec.h"

#include "blocks.h"
#include "mathvec.h"

#include "elementwise.h"
#include "lines.h"
#include "panels.h"

#include "box.h"
#include "convolution.h"
#include "losses.h"
#include "matrix.h"
#include "pooling.h"
#include "recurrent.h"
#include "winograd.h"

static const Kernel KERNELS[] = {
    ENTRY(map),
    ENTRY(conv),
    ENTRY(pack_weight),
    ENTRY(conv_dweight),
    ENTRY(gather),
    ENTRY(winograd),
    ENTRY(winograd_weight),
    ENTRY(winograd_dweight),
    ENTRY(product),
    ENTRY_AS(pool_max, pool),
    ENTRY_AS(pool_max_dx, pool),
    ENTRY_AS(pool_ave, pool),
    ENTRY_AS(pool_ave_dx, pool),
    ENTRY(box_sum),
    ENTRY(softmax),
    ENTRY_AS(softmax_dx, softmax),
    ENTRY(count_labels),
    ENTRY(cross_entropy),
    ENTRY_AS(cross_entropy_dx, cross_entropy),
    ENTRY(lstm_pack),
    ENTRY_AS(lstm_pack_back, lstm_pack),
    ENTRY(lstm),
    ENTRY(lstm_dz),
};
enum { KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS };
