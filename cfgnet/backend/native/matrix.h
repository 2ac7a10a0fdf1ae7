/* product: out (rows, columns) = or += a @ b, plus a bias per column, where a[m][k] = a[m * a_row + k * a_step] and
   b[k][n] = b[k * b_row + n * b_step]. One step of each is 1.

   A part is some of the rows, and where the rows of a lie in one piece, by a few vectors of columns. It copies those
   columns of b together first, some of the depth at a time, so that they are read from a core's cache in the order in
   which they lie, and at the addresses that vectors like. Where the columns of a lie in one piece, as in the gradient of
   a weight, it copies the rows of a together as well; there out may be large and the depth small, so that what counts is
   that memory is written in long pieces. */

#define FIELDS_product(A, W, L, C, I, F)                                                                       \
    A(a) A(b) A(bias) A(out) I(rows) I(columns) I(depth) I(a_row) I(a_step) I(b_row) I(b_step) I(ldout) I(add)
DECLARE(product)

enum { PANEL = MOST_VECTORS * LANES, PANEL_DEPTH = 128, PART_ROWS = 128 };

/* Where the columns of a lie in one piece: the rows and columns of a block, the depth and how much of b are copied at a
   time, and the most rows of a part. A high block reads little of b at a time, which so may come from the second cache. */
enum { HEIGHT = ROWS(2), WIDTH = 2 * LANES, COLUMN_DEPTH = 256, COPIED = 1 << 17, MOST_SHARE = 2 * PART_ROWS };

/* Into how many shares the rows are cut: as many as threads share out well, where there are several. Each copies b, so
   that they are large, unless there would be too few parts because there are few columns. */
INLINE int64_t product_shares(const product_args *p) {
    const int64_t shares = ceil_div(p->rows, p->a_step == 1 && p->columns < EVEN * PANEL ? PART_ROWS : MOST_SHARE);
    return shares > 2 ? ceil_div(shares, EVEN) * EVEN : shares;
}

/* Into how many pieces the columns are cut: into panels, or where the columns of a lie in one piece only as far as there
   are too few rows for all threads, because each piece copies the rows of a. */
INLINE int64_t product_pieces(const product_args *p) {
    if (p->a_step == 1) return ceil_div(p->columns, PANEL);
    if (product_shares(p) > 1) return 1;
    return p->columns < EVEN * PANEL ? larger(1, smaller(2, p->columns / PANEL)) : smaller(EVEN, p->columns / (2 * PANEL));
}

/* How many columns of b are copied at a time where the columns of a lie in one piece. */
INLINE int64_t product_copied(const product_args *p) {
    return smaller(COPIED / smaller(COLUMN_DEPTH, p->depth), ceil_div(p->columns, WIDTH) * WIDTH) / WIDTH * WIDTH;
}

static Demand product_demand(const void *args) {
    const product_args *p = args;
    const int64_t shares = product_shares(p), depth = smaller(COLUMN_DEPTH, p->depth);
    const int64_t blocks = ceil_div(ceil_div(p->rows, shares), HEIGHT);
    const int64_t copied = blocks * block_floats(HEIGHT, depth) + product_copied(p) * depth;
    return (Demand){shares * product_pieces(p), p->a_step == 1 ? PANEL * PANEL_DEPTH : copied};
}

INLINE Range product_rows(const product_args *p, int64_t share) {
    const int64_t shares = product_shares(p), first = p->rows * share / shares;
    return (Range){first, p->rows * (share + 1) / shares - first};
}

static void product_by_rows(const product_args *p, int64_t part, float *panel) {
    const int64_t panels = product_pieces(p), column = part % panels * PANEL;
    const Range own = product_rows(p, part / panels);
    const int64_t first = own.first, stop = first + own.count;
    const int64_t columns = smaller(PANEL, p->columns - column);
    const int v = (int)ceil_div(columns, LANES), rows = ROWS(v);
    const float *a[MOST_ROWS], *b[1] = {panel};
    float *out[MOST_ROWS];
    for (int64_t k = 0; k < p->depth; k += PANEL_DEPTH) {
        int64_t depth = smaller(PANEL_DEPTH, p->depth - k);
        pack(p->b + k * p->b_row + column * p->b_step, p->b_row, p->b_step, depth, columns, v * LANES, panel);
        for (int64_t row = first; row < stop; row += rows) {
            for (int r = 0; r < rows; r++) {
                int64_t at = smaller(row + r, stop - 1);
                a[r] = p->a + at * p->a_row + k;
                out[r] = p->out + at * p->ldout + column;
            }
            const float *start = p->bias && !k ? p->bias + column : NULL;
            RowBlock t = {a, ONE_TAP, 1, depth, b, v * LANES, start, out, smaller(rows, stop - row), columns, p->add || k};
            run_rows_block(&t, v);
        }
    }
}

/* What a product with a bias is added to. */
static void product_begin(const product_args *p, Range own, Range columns) {
    for (int64_t r = own.first; r < own.first + own.count; r++)
        for (int64_t n = columns.first; n < columns.first + columns.count; n++)
            p->out[r * p->ldout + n] = (p->add ? p->out[r * p->ldout + n] : 0) + p->bias[n];
}

/* Copies columns of a matrix (depth, columns) by panels, one behind the other. */
static void pack_columns(const float *from, int64_t row, int64_t step, int64_t depth, int64_t columns, int64_t width,
                         float *to) {
    for (int64_t n = 0; n < columns; n += width)
        pack(from + n * step, row, step, depth, smaller(width, columns - n), width, to + n * depth);
}

/* Some of the depth, from k on, in the rows of a part, which are packed, and in some columns. */
static void product_group(const product_args *p, Range own, int64_t column, int64_t columns, int64_t k, int64_t depth,
                          const float *a, float *b) {
    pack_columns(p->b + k * p->b_row + column * p->b_step, p->b_row, p->b_step, depth, columns, WIDTH, b);
    for (int64_t row = 0; row < own.count; row += HEIGHT, a += block_floats(HEIGHT, depth))
        for (int64_t at = 0; at < columns; at += WIDTH) {
            const ColumnBlock t = {
                .lines = 1, .depth = depth, .a = a, .step = HEIGHT, .b = b + at * depth, .ldb = WIDTH,
                .out = p->out + (own.first + row) * p->ldout + column + at, .ldout = p->ldout,
                .rows = smaller(HEIGHT, own.count - row), .columns = smaller(WIDTH, columns - at),
                .set = !p->add && !p->bias && !k,
            };
            COLUMN_BLOCKS[t.columns > LANES ? 2 : 1][t.rows](&t);
        }
}

/* Some columns of a product. */
typedef struct {
    const product_args *product;
    Range columns;
} Side;

/* Products of the same a, which is copied once for all: as many columns at a time as there is room for, so that memory is
   written in long pieces. */
static void product_by_columns(const Side *sides, int count, Range own, float *work) {
    const product_args *any = sides->product;
    float *a = work, *b = work + ceil_div(own.count, HEIGHT) * block_floats(HEIGHT, smaller(COLUMN_DEPTH, any->depth));
    for (const Side *side = sides; side < sides + count; side++)
        if (side->product->bias) product_begin(side->product, own, side->columns);
    for (int64_t k = 0; k < any->depth; k += COLUMN_DEPTH) {
        const int64_t depth = smaller(COLUMN_DEPTH, any->depth - k);
        pack_blocks(any->a + own.first + k * any->a_step, any->a_step, depth, own.count, HEIGHT, a);
        for (const Side *side = sides; side < sides + count; side++) {
            const int64_t some = product_copied(side->product), stop = side->columns.first + side->columns.count;
            for (int64_t column = side->columns.first; column < stop; column += some)
                product_group(side->product, own, column, smaller(some, stop - column), k, depth, a, b);
        }
    }
}

/* product_rows: the same, where the rows of a lie in one piece, and out too; a part is all columns of some rows, so that it
   can be gone on with while it is in the cache. */

#define FIELDS_product_rows FIELDS_product
DECLARE(product_rows)

static Demand product_rows_demand(const void *args) {
    return (Demand){product_shares(args), PANEL * PANEL_DEPTH};
}

static Range product_rows_covers(const void *args, int64_t part) {
    const product_args *p = args;
    const Range own = product_rows(p, part);
    return (Range){own.first * p->columns, own.count * p->columns};
}

static void product_rows_run(const void *args, int64_t part, float *panel) {
    const product_args *p = args;
    const int64_t panels = product_pieces(p);
    for (int64_t i = 0; i < panels; i++) product_by_rows(p, part * panels + i, panel);
}

static void product_run(const void *args, int64_t part, float *work) {
    const product_args *p = args;
    if (p->a_step == 1) {
        product_by_rows(p, part, work);
        return;
    }
    const int64_t pieces = product_pieces(p), vectors = ceil_div(p->columns, LANES), piece = part % pieces;
    const int64_t first = vectors * piece / pieces * LANES;
    const int64_t last = smaller(vectors * (piece + 1) / pieces * LANES, p->columns);
    product_by_columns(&(Side){p, {first, last - first}}, 1, product_rows(p, part / pieces), work);
}

/* products_beside: two products of the same a whose columns lie in one piece, as in the gradients of two weights. A part is
   some rows of both. */

#define FIELDS_products_beside(A, W, L, C, I, F) C(one) C(other)
DECLARE(products_beside)

static Demand products_beside_demand(const void *args) {
    const products_beside_args *p = args;
    return (Demand){product_shares(p->one), larger(product_demand(p->one).work, product_demand(p->other).work)};
}

static void products_beside_run(const void *args, int64_t part, float *work) {
    const products_beside_args *p = args;
    const product_args *one = p->one, *other = p->other;
    const Side sides[2] = {{one, {0, one->columns}}, {other, {0, other->columns}}};
    product_by_columns(sides, 2, product_rows(one, part), work);
}

/* products: the product `one` for each place along three axes of sizes n0 to n2, along which the matrices lie a0 to a2,
   b0 to b2 and y0 to y2 apart; a matrix that is taken several times lies 0 apart.

   Each product has the parts that it has by itself. Where that is one, a part is some products, so that they are not
   too many for what it takes to hand one out. */

#define FIELDS_products(A, W, L, C, I, F)                                                                      \
    C(one) I(n0) I(n1) I(n2) I(a0) I(a1) I(a2) I(b0) I(b1) I(b2) I(y0) I(y1) I(y2)
DECLARE(products)

enum { MOST_PARTS = 64 };

INLINE int64_t products_count(const products_args *p) { return p->n0 * p->n1 * p->n2; }

static Demand products_demand(const void *args) {
    const products_args *p = args;
    const Demand one = product_demand(p->one);
    const int64_t count = products_count(p);
    return (Demand){one.parts == 1 ? smaller(count, MOST_PARTS) : count * one.parts, one.work};
}

/* The product at a place. */
INLINE product_args product_at(const products_args *p, int64_t place) {
    const int64_t i = place / p->n2 / p->n1, j = place / p->n2 % p->n1, k = place % p->n2;
    product_args one = *(const product_args *)p->one;
    one.a += i * p->a0 + j * p->a1 + k * p->a2;
    one.b += i * p->b0 + j * p->b1 + k * p->b2;
    one.out += i * p->y0 + j * p->y1 + k * p->y2;
    return one;
}

static void products_run(const void *args, int64_t part, float *work) {
    const products_args *p = args;
    const int64_t count = products_count(p), parts = products_demand(p).parts, each = product_demand(p->one).parts;
    const int64_t first = each == 1 ? count * part / parts : part / each;
    const int64_t stop = each == 1 ? count * (part + 1) / parts : first + 1;
    for (int64_t place = first; place < stop; place++) {
        const product_args one = product_at(p, place);
        product_run(&one, part % each, work);
    }
}
