/* All kernels, for the set of instructions whose file includes this. */
#include "call.h"

#include "vec.h"

#include "blocks.h"
#include "mathvec.h"

#include "elementwise.h"
#include "lines.h"
#include "panels.h"

#include "recurrent.h"

#include "box.h"
#include "convolution.h"
#include "copy.h"
#include "depthwise.h"
#include "gru.h"
#include "losses.h"
#include "lstm.h"
#include "matrix.h"
#include "moments.h"
#include "normalization.h"
#include "pooling.h"
#include "resampling.h"
#include "rnn.h"
#include "rows.h"
#include "tiles.h"
#include "uniform.h"
#include "winograd.h"

#include "attention.h"
#include "classes.h"
#include "ctc.h"
#include "extremes.h"

static const Kernel KERNELS[] = {
    ENTRY_OF(map, map, NULL, map_over),
    ENTRY_COVERING(conv),
    ENTRY(pack_weight),
    ENTRY(conv_dweight),
    ENTRY_COVERING(depthwise),
    ENTRY(depthwise_dweight),
    ENTRY(gather),
    ENTRY_COVERING(winograd),
    ENTRY(winograd_weight),
    ENTRY(winograd_dweight),
    ENTRY_COVERING(winograd_dx),
    ENTRY(product),
    ENTRY_COVERING(product_rows),
    ENTRY(products),
    ENTRY(products_beside),
    ENTRY_OF(pool_max, pool, pool_y_covers, NULL),
    ENTRY_OF(pool_max_dx, pool, pool_x_covers, NULL),
    ENTRY_OF(pool_max_dx_tiles, pool, pool_x_covers, NULL),
    ENTRY_OF(pool_ave, pool, pool_y_covers, NULL),
    ENTRY_OF(pool_ave_dx, pool, pool_x_covers, NULL),
    ENTRY_OF(pool_draw, pool, pool_y_covers, NULL),
    ENTRY_OF(pool_draw_dx, pool, pool_x_covers, NULL),
    ENTRY_COVERING(resample),
    ENTRY(box_sum),
    ENTRY(softmax),
    ENTRY_AS(softmax_dx, softmax),
    ENTRY_AS(log_softmax, softmax),
    ENTRY_AS(log_softmax_dx, softmax),
    ENTRY(count_labels),
    ENTRY(cross_entropy),
    ENTRY_AS(cross_entropy_dx, cross_entropy),
    ENTRY(label_weights),
    ENTRY(pick),
    ENTRY_AS(log_total, label_slope),
    ENTRY(label_slope),
    ENTRY(label_rows),
    ENTRY(extreme),
    ENTRY(largest),
    ENTRY(ctc),
    ENTRY_AS(ctc_dx, ctc),
    ENTRY(gates_pack),
    ENTRY_AS(gates_pack_back, gates_pack),
    ENTRY(lstm),
    ENTRY(lstm_dz),
    ENTRY(gru),
    ENTRY(gru_dz),
    ENTRY(rnn),
    ENTRY(rnn_dz),
    ENTRY(uniform),
    ENTRY(copy),
    ENTRY_OF(moments, moments, NULL, moments_over),
    ENTRY(moments_together),
    ENTRY_COVERING(normalize),
    ENTRY_OF(normalize_dx, normalize, normalize_covers, NULL),
    ENTRY_COVERING(take),
    ENTRY(scatter_add),
    ENTRY(keep),
    ENTRY(attention),
    ENTRY_AS(attention_dx, attention),
};
enum { KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS };
