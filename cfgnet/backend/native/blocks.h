/* The two loops in which nearly all time is spent: blocks of a product of matrices that stay in registers.

   rows: the elements that are summed over lie one after another, as the channels of a pixel do. Each row of the block
   has a pointer of its own (Dukhan 2019, "The indirect convolution algorithm"), so that a convolution needs no unfolded
   copy: the rows are pixels, and `taps` the elements of the kernel, or its rows, which lie at the same distance from
   each pixel. What they are multiplied with is packed in panels.

   columns: the rows of the block lie one after another, and what is summed over `step` apart: the gradient of a weight,
   where channels are the rows and the sum goes over pixels.

   A block is `rows` by v vectors; the processor's registers decide how many rows there is room for. */

/* Most rows of a block with v vectors: its sums, the v vectors of b and one of a must fit the registers. */
#if REGISTERS == 32
#define MOST_VECTORS 4
#define ROWS(v) ((v) == 1 ? 16 : (v) == 2 ? 14 : (v) == 3 ? 9 : 6)
#else
#define MOST_VECTORS 3
#define ROWS(v) ((v) == 1 ? 10 : (v) == 2 ? 6 : 4)
#endif
#define MOST_ROWS ROWS(1)

enum { EVEN = 4 }; /* of as many parts, or more, each thread gets about the same */

/* How many of the next vectors, of `left`, a block takes: as many as it can hold, and no single one left over. */
INLINE int block_vectors(int64_t left) {
    if (left <= MOST_VECTORS) return (int)left;
    return left == MOST_VECTORS + 1 ? MOST_VECTORS - 1 : MOST_VECTORS;
}

typedef struct {
    const float *const *a; /* ROWS(v) of them, all readable, those beyond `rows` too */
    const int64_t *taps;   /* how far behind a row each of its taps lies */
    int64_t count, depth;  /* of the taps; how many floats of each are taken */
    const float *const *b; /* b[tap]: (depth, ldb), in whole vectors */
    int64_t ldb;
    const float *start; /* what the sums start from, one per column, or NULL for zero */
    float *const *out;  /* where each row goes */
    int64_t rows, columns; /* how much of the block is wanted */
    int add;               /* whether to add to what is there */
} RowBlock;

/* The taps of rows that are in one piece. */
static const int64_t ONE_TAP[1] = {0};

/* How many elements of the depth are taken at once: with one vector, to read where a row lies takes as long as to
   multiply, so that it is done for several elements. */
#define STEPS(v) ((v) == 1 ? 4 : 1)

/* Adds the products of `steps` elements of the depth, from element k of the rows and from b on. */
INLINE void add_rows(const float *const *a, int64_t k, const float *b, int64_t ldb, const int rows, const int v,
                     const int steps, vec *sums) {
    vec row[STEPS(1) * MOST_VECTORS];
    UNROLL for (int i = 0; i < steps; i++)
        UNROLL for (int j = 0; j < v; j++) row[i * v + j] = load(b + i * ldb + j * LANES);
    UNROLL for (int r = 0; r < rows; r++) {
        const float *from = a[r] + k;
        UNROLL for (int i = 0; i < steps; i++)
            UNROLL for (int j = 0; j < v; j++) sums[r * v + j] += from[i] * row[i * v + j];
    }
}

/* `rows`: how many are computed, at least those that are wanted. */
INLINE void rows_block(const RowBlock *t, const int rows, const int v) {
    const int64_t last = t->columns - (v - 1) * LANES;
    vec sums[MOST_ROWS * MOST_VECTORS];
    UNROLL for (int j = 0; j < v; j++) {
        const vec start = t->start ? load_some(t->start + j * LANES, j == v - 1 ? last : LANES) : splat(0);
        UNROLL for (int r = 0; r < rows; r++) sums[r * v + j] = start;
    }
    for (int64_t tap = 0; tap < t->count; tap++) {
        const float *b = t->b[tap];
        int64_t k = t->taps[tap];
        const int64_t end = k + t->depth;
        for (; k + STEPS(v) <= end; k += STEPS(v), b += STEPS(v) * t->ldb)
            add_rows(t->a, k, b, t->ldb, rows, v, STEPS(v), sums);
        for (; k < end; k++, b += t->ldb) add_rows(t->a, k, b, t->ldb, rows, v, 1, sums);
    }
    UNROLL for (int r = 0; r < rows; r++) {
        if (r >= t->rows) return;
        UNROLL for (int j = 0; j < v; j++) {
            const int64_t n = j == v - 1 ? last : LANES;
            float *out = t->out[r] + j * LANES;
            if (t->add) sums[r * v + j] += load_some(out, n);
            store_some(out, sums[r * v + j], n);
        }
    }
}

typedef struct {
    int64_t lines, depth; /* the sum goes over lines, and over `depth` elements of each */
    const float *a;       /* a[line * a_line + k * step + row] */
    int64_t a_line, step;
    const float *b; /* b[line * b_line + k * ldb + column] */
    int64_t b_line, ldb;
    float *out; /* (rows, ldout), which the product is added to, or set to */
    int64_t ldout, rows, columns;
    int set;
} ColumnBlock;

/* `whole`: all columns of the last vector count, so that nothing is read or written in part. */
INLINE void columns_of(const ColumnBlock *t, const int rows, const int v, const int whole) {
    const int64_t last = whole ? LANES : t->columns - (v - 1) * LANES;
    vec sums[MOST_ROWS * MOST_VECTORS], row[MOST_VECTORS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < v; j++) sums[r * v + j] = splat(0);
    if (!t->set)
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int j = 0; j < v; j++)
                sums[r * v + j] = load_some(t->out + r * t->ldout + j * LANES, j == v - 1 ? last : LANES);
    for (int64_t line = 0; line < t->lines; line++) {
        const float *a = t->a + line * t->a_line, *b = t->b + line * t->b_line;
        for (int64_t k = 0; k < t->depth; k++, a += t->step, b += t->ldb) {
            UNROLL for (int j = 0; j < v; j++) row[j] = load_some(b + j * LANES, j == v - 1 ? last : LANES);
            UNROLL for (int r = 0; r < rows; r++)
                UNROLL for (int j = 0; j < v; j++) sums[r * v + j] += a[r] * row[j];
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < v; j++)
            store_some(t->out + r * t->ldout + j * LANES, sums[r * v + j], j == v - 1 ? last : LANES);
}

INLINE void columns_block(const ColumnBlock *t, const int rows, const int v) {
    if (t->columns == v * LANES)
        columns_of(t, rows, v, 1);
    else
        columns_of(t, rows, v, 0);
}

/* Every shape of a block as a function of its own, so that its sums are registers. */
#define ROWS_FUNCTION(v) \
    static void rows_##v(const RowBlock *t) { rows_block(t, ROWS(v), v); }
#define FEW_ROWS_FUNCTION(r, v) \
    static void few_rows_##r##_##v(const RowBlock *t) { rows_block(t, r, v); }
#define COLUMNS_FUNCTION(r, v) \
    static void columns_##r##_##v(const ColumnBlock *t) { columns_block(t, r, v); }
#define UP_TO_4(F, v) F(1, v) F(2, v) F(3, v) F(4, v)
#define UP_TO_6(F, v) UP_TO_4(F, v) F(5, v) F(6, v)
#define UP_TO_9(F, v) UP_TO_6(F, v) F(7, v) F(8, v) F(9, v)
#define UP_TO_10(F, v) UP_TO_9(F, v) F(10, v)
#define UP_TO_14(F, v) UP_TO_10(F, v) F(11, v) F(12, v) F(13, v) F(14, v)
#define UP_TO_16(F, v) UP_TO_14(F, v) F(15, v) F(16, v)
#if REGISTERS == 32
#define COLUMN_SHAPES(F) UP_TO_16(F, 1) UP_TO_14(F, 2) UP_TO_9(F, 3) UP_TO_6(F, 4)
#define ROW_SHAPES(F) F(1) F(2) F(3) F(4)
#define FEW_ROWS_SHAPES(F) UP_TO_14(F, 2) UP_TO_9(F, 3) UP_TO_6(F, 4)
#else
#define COLUMN_SHAPES(F) UP_TO_10(F, 1) UP_TO_6(F, 2) UP_TO_4(F, 3)
#define ROW_SHAPES(F) F(1) F(2) F(3)
#define FEW_ROWS_SHAPES(F) UP_TO_6(F, 2)
#endif

ROW_SHAPES(ROWS_FUNCTION)
FEW_ROWS_SHAPES(FEW_ROWS_FUNCTION)
COLUMN_SHAPES(COLUMNS_FUNCTION)
#define ROWS_ENTRY(v) [v] = rows_##v,
#define FEW_ROWS_ENTRY(r, v) [v][r] = few_rows_##r##_##v,
#define COLUMNS_ENTRY(r, v) [v][r] = columns_##r##_##v,
static void (*const ROW_BLOCKS[MOST_VECTORS + 1])(const RowBlock *) = {ROW_SHAPES(ROWS_ENTRY)};
static void (*const FEW_ROWS[MOST_VECTORS + 1][MOST_ROWS + 1])(const RowBlock *) = {FEW_ROWS_SHAPES(FEW_ROWS_ENTRY)};
static void (*const COLUMN_BLOCKS[MOST_VECTORS + 1][MOST_ROWS + 1])(const ColumnBlock *) = {
    COLUMN_SHAPES(COLUMNS_ENTRY)};

/* Computes a block of v vectors, and no more rows than are wanted where there is a function for that. */
INLINE void run_rows_block(const RowBlock *t, int v) {
    (t->rows <= MOST_ROWS && FEW_ROWS[v][t->rows] ? FEW_ROWS[v][t->rows] : ROW_BLOCKS[v])(t);
}

/* Adds a product of `rows` by `columns` of any size: all of its blocks. */
INLINE void run_columns(const ColumnBlock *whole) {
    for (int64_t column = 0; column < whole->columns;) {
        int v = block_vectors(ceil_div(whole->columns - column, LANES));
        const int64_t blocks = ceil_div(whole->rows, ROWS(v));
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = whole->rows * block / blocks;
            ColumnBlock t = *whole;
            t.a += row;
            t.b += column;
            t.out += row * t.ldout + column;
            t.rows = whole->rows * (block + 1) / blocks - row;
            t.columns = smaller((int64_t)v * LANES, t.columns - column);
            COLUMN_BLOCKS[v][t.rows](&t);
        }
        column += v * LANES;
    }
}
