/* product: out (rows, columns) = or += a @ b, plus a bias per column, where a[m][k] = a[m * a_row + k * a_step] and
   b[k][n] = b[k * b_row + n * b_step]. One step of each is 1.

   Where the rows of a lie in one piece, a part is some of them by a few vectors of columns. It copies those columns of b
   together first, some of the depth at a time, so that they are read from a core's cache in the order in which they lie.
   Where the columns of a do, as in the gradient of a weight, b is read as it is, and its b_step must be 1. */

#define FIELDS_product(A, W, L, C, I, F)                                                                       \
    A(a) A(b) A(bias) A(out) I(rows) I(columns) I(depth) I(a_row) I(a_step) I(b_row) I(b_step) I(ldout) I(add)
DECLARE(product)

enum { PANEL = MOST_VECTORS * LANES, PANEL_DEPTH = 256, PART_ROWS = 96 };

static Demand product_demand(const void *args) {
    const product_args *p = args;
    int64_t parts = ceil_div(p->rows, PART_ROWS);
    return p->a_step == 1 ? (Demand){parts * ceil_div(p->columns, PANEL), PANEL * PANEL_DEPTH} : (Demand){parts, 0};
}

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

/* panel[k * width + n] = b[k][first + n] for `depth` values of k and n < columns, in rows of `width`. */
static void pack(const product_args *p, const float *b, int64_t depth, int64_t columns, int64_t width, float *panel) {
    if (p->b_step == 1) {
        for (int64_t k = 0; k < depth; k++)
            for (int64_t n = 0; n < columns; n += LANES) {
                int64_t some = smaller(LANES, columns - n);
                store(panel + k * width + n, load_some(b + k * p->b_row + n, some));
            }
        return;
    }
    for (int64_t n = 0; n < columns; n += LANES)
        for (int64_t k = 0; k < depth; k += LANES) {
            int64_t some = smaller(LANES, depth - k);
            vec rows[LANES];
            for (int i = 0; i < LANES; i++)
                rows[i] = n + i < columns ? load_some(b + (n + i) * p->b_step + k, some) : splat(0);
            transpose(rows);
            for (int64_t i = 0; i < some; i++) store(panel + (k + i) * width + n, rows[i]);
        }
}

static void product_by_rows(const product_args *p, int64_t part, float *panel) {
    const int64_t panels = ceil_div(p->columns, PANEL), column = part % panels * PANEL;
    const int64_t first = part / panels * PART_ROWS, stop = smaller(p->rows, first + PART_ROWS);
    const int64_t columns = smaller(PANEL, p->columns - column);
    const int v = (int)ceil_div(columns, LANES), rows = ROWS(v);
    const float *a[MOST_ROWS], *b[1] = {panel};
    float *out[MOST_ROWS];
    for (int64_t k = 0; k < p->depth; k += PANEL_DEPTH) {
        int64_t depth = smaller(PANEL_DEPTH, p->depth - k);
        pack(p, p->b + k * p->b_row + column * p->b_step, depth, columns, v * LANES, panel);
        for (int64_t row = first; row < stop; row += rows) {
            for (int r = 0; r < rows; r++) {
                int64_t at = smaller(row + r, stop - 1);
                a[r] = p->a + at * p->a_row + k;
                out[r] = p->out + at * p->ldout + column;
            }
            const float *start = p->bias && !k ? p->bias + column : NULL;
            RowBlock t = {a, 1, depth, b, 0, v * LANES, start, out, smaller(rows, stop - row), columns, p->add || k};
            ROW_BLOCKS[v][columns < v * LANES](&t);
        }
    }
}

static void product_by_columns(const product_args *p, int64_t part) {
    const int64_t first = part * PART_ROWS, rows = smaller(PART_ROWS, p->rows - first);
    float *out = p->out + first * p->ldout;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < p->columns; n++)
            out[r * p->ldout + n] = (p->add ? out[r * p->ldout + n] : 0) + (p->bias ? p->bias[n] : 0);
    ColumnBlock t = {
        .lines = 1, .depth = p->depth, .a = p->a + first, .step = p->a_step, .b = p->b, .ldb = p->b_row,
        .out = out, .ldout = p->ldout, .rows = rows, .columns = p->columns,
    };
    run_columns(&t);
}

static void product_run(const void *args, int64_t part, float *work) {
    const product_args *p = args;
    if (p->a_step == 1)
        product_by_rows(p, part, work);
    else
        product_by_columns(p, part);
}
