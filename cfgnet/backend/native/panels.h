/* Panels: the columns of a matrix that a block is multiplied with, packed so that they are read in the order in which
   they lie, in whole vectors, and do not compete for the same lines of a cache.

   A matrix (depth, columns) is packed as panels of block_vectors() vectors: the one of column n begins at n * depth. */

/* Turns rows into columns: interleaves the two halves, as often as it takes. */
INLINE void transpose(vec *rows) {
    for (int width = LANES; width > 1; width /= 2) {
        vec next[LANES] = {{0}};
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = zip_low(rows[i], rows[i + LANES / 2]);
            next[2 * i + 1] = zip_high(rows[i], rows[i + LANES / 2]);
        }
        UNROLL for (int i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

/* panel[k * width + n] = b[k * row + n * step] for k < depth and n < columns, in whole vectors; one of row and step is
   1. */
static void pack(const float *b, int64_t row, int64_t step, int64_t depth, int64_t columns, int64_t width,
                 float *panel) {
    if (step == 1) {
        for (int64_t k = 0; k < depth; k++)
            for (int64_t n = 0; n < columns; n += LANES) {
                int64_t some = smaller(LANES, columns - n);
                store(panel + k * width + n, load_some(b + k * row + n, some));
            }
        return;
    }
    for (int64_t n = 0; n < columns; n += LANES)
        for (int64_t k = 0; k < depth; k += LANES) {
            int64_t some = smaller(LANES, depth - k);
            vec rows[LANES];
            for (int i = 0; i < LANES; i++)
                rows[i] = n + i < columns ? load_some(b + (n + i) * step + k, some) : splat(0);
            transpose(rows);
            for (int64_t i = 0; i < some; i++) store(panel + (k + i) * width + n, rows[i]);
        }
}

/* How wide the panel is that begins with a column. */
INLINE int64_t panel_width(int64_t column, int64_t columns) {
    return block_vectors(ceil_div(columns - column, LANES)) * LANES;
}

/* Packs b (depth, columns), with b[k][n] = b[k * row + n * step], a whole matrix. */
static void pack_panels(const float *b, int64_t row, int64_t step, int64_t depth, int64_t columns, float *to) {
    for (int64_t n = 0; n < columns; n += panel_width(n, columns)) {
        const int64_t width = panel_width(n, columns);
        pack(b + n * step, row, step, depth, smaller(width, columns - n), width, to + n * depth);
    }
}

/* How far apart the packed blocks of rows lie: not so that all of them begin in the same lines of a cache. */
INLINE int64_t block_floats(int64_t height, int64_t depth) { return height * depth + LANES; }

/* Packs rows that lie in columns, a[k * step + row], by blocks: to[k * height + row], and behind it the next `height`
   rows. */
static void pack_blocks(const float *a, int64_t step, int64_t depth, int64_t rows, int64_t height, float *to) {
    for (int64_t k = 0; k < depth; k++) {
        float *line = to + k * height;
        for (int64_t row = 0; row < rows; row += height, line += block_floats(height, depth)) {
            const int64_t n = smaller(height, rows - row);
            EACH_VECTOR(n, { store_some(line + i, load_some(a + k * step + row + i, some), some); })
        }
    }
}

/* A packed matrix (depth, columns). */
typedef struct {
    const float *panels;
    int64_t depth, columns;
} Packed;

/* out (rows, columns) = or += a (rows, depth) @ b, of which no more than so many rows and columns are taken. */
static void packed_part(const float *a, int64_t lda, Packed b, float *out, int64_t ldout, int64_t rows, int64_t depth,
                        int64_t columns, int add) {
    const float *from[MOST_ROWS];
    float *to[MOST_ROWS];
    for (int64_t column = 0; column < columns; column += panel_width(column, b.columns)) {
        const int64_t width = panel_width(column, b.columns), wanted = smaller(width, columns - column);
        const int v = (int)ceil_div(wanted, LANES);
        const float *panel = b.panels + column * b.depth;
        for (int64_t row = 0; row < rows; row += ROWS(v)) {
            for (int r = 0; r < ROWS(v); r++) {
                const int64_t at = smaller(row + r, rows - 1);
                from[r] = a + at * lda;
                to[r] = out + at * ldout + column;
            }
            RowBlock t = {from, ONE_TAP, 1, depth, &panel, width, NULL, to, smaller(ROWS(v), rows - row), wanted, add};
            run_rows_block(&t, v);
        }
    }
}

/* out (rows, columns) = or += a (rows, depth) @ b (depth, columns), of which b is packed. */
static void packed_product(const float *a, int64_t lda, const float *b, float *out, int64_t ldout, int64_t rows,
                           int64_t depth, int64_t columns, int add) {
    packed_part(a, lda, (Packed){b, depth, columns}, out, ldout, rows, depth, columns, add);
}

/* out = a @ b, of which b is packed. */
static void run_rows(const float *a, int64_t lda, const float *b, float *out, int64_t ldout, int64_t rows, int64_t depth,
                     int64_t columns) {
    packed_product(a, lda, b, out, ldout, rows, depth, columns, 0);
}

/* pack_weight: a weight (tap, input channel / group, output channel) as a packed matrix (tap and input channel, output
   channel) for each group; or `turned`, for the gradient of the input, (tap and output channel, input channel). */

#define FIELDS_pack_weight(A, W, L, C, I, F) A(weight) A(packed) I(taps) I(group) I(inputs) I(outputs) I(turned)
DECLARE(pack_weight)

enum { PACKED_ROWS = 64 }; /* in a part */

/* The matrix of one tap and group. */
INLINE int64_t packed_depth(const pack_weight_args *w) { return (w->turned ? w->outputs : w->inputs) / w->group; }
INLINE int64_t packed_columns(const pack_weight_args *w) { return (w->turned ? w->inputs : w->outputs) / w->group; }

static Demand pack_weight_demand(const void *args) {
    const pack_weight_args *w = args;
    return (Demand){w->group * w->taps * ceil_div(packed_depth(w), PACKED_ROWS), 0};
}

static void pack_weight_run(const void *args, int64_t part, float *work) {
    const pack_weight_args *w = args;
    const int64_t depth = packed_depth(w), columns = packed_columns(w), pieces = ceil_div(depth, PACKED_ROWS);
    const int64_t k = part % pieces * PACKED_ROWS, tap = part / pieces % w->taps, group = part / pieces / w->taps;
    const int64_t row = w->turned ? 1 : w->outputs, step = w->turned ? w->outputs : 1;
    const float *from = w->weight + tap * w->inputs / w->group * w->outputs + group * (w->outputs / w->group) + k * row;
    float *to = w->packed + group * w->taps * depth * whole_vectors(columns);
    for (int64_t n = 0; n < columns; n += panel_width(n, columns)) {
        const int64_t width = panel_width(n, columns);
        pack(from + n * step, row, step, smaller(PACKED_ROWS, depth - k), smaller(width, columns - n), width,
             to + n * w->taps * depth + (tap * depth + k) * width);
    }
}
