/* copy: y = x, element by element, over four axes of sizes n0 to n3 along which the elements lie x0 to x3 and y0 to y3
   apart. What counts are the two last axes: where the last is one piece in both arrays, rows are copied, such as the
   channels of a pixel into those of a wider one; where it is one piece in y and the axis before it is one in x, small
   tiles are transposed in registers, such as from channels last to channels first. */

#define FIELDS_copy(A, W, L, C, I, F)                                                                          \
    A(x) A(y) I(n0) I(n1) I(n2) I(n3) I(x0) I(x1) I(x2) I(x3) I(y0) I(y1) I(y2) I(y3) I(parts)
DECLARE(copy)

static Demand copy_demand(const void *args) { return (Demand){((const copy_args *)args)->parts, 0}; }

/* Some rows of y, whose elements are columns of x. */
static void copy_turned(const copy_args *p, const float *x, float *y, int64_t rows) {
    for (int64_t column = 0; column < p->n3; column += LANES) {
        const int64_t columns = smaller(LANES, p->n3 - column);
        vec tile[LANES] = {{0}};
        for (int64_t i = 0; i < columns; i++) tile[i] = load_some(x + (column + i) * p->x3, rows);
        transpose(tile);
        for (int64_t r = 0; r < rows; r++) store_some(y + r * p->y2 + column, tile[r], columns);
    }
}

/* A part is some groups of at most LANES rows. */
static void copy_run(const void *args, int64_t part, float *work) {
    const copy_args *p = args;
    const int64_t groups = ceil_div(p->n2, LANES), all = p->n0 * p->n1 * groups;
    const int in_rows = p->x3 == 1 && p->y3 == 1, turned = p->x2 == 1 && p->y3 == 1;
    for (int64_t group = all * part / p->parts; group < all * (part + 1) / p->parts; group++) {
        const int64_t row = group % groups * LANES, rows = smaller(LANES, p->n2 - row);
        const int64_t i = group / groups / p->n1, j = group / groups % p->n1;
        const float *x = p->x + i * p->x0 + j * p->x1 + row * p->x2;
        float *y = p->y + i * p->y0 + j * p->y1 + row * p->y2;
        if (turned && !in_rows) {
            copy_turned(p, x, y, rows);
            continue;
        }
        for (int64_t r = 0; r < rows; r++, x += p->x2, y += p->y2)
            if (in_rows)
                copy_floats(y, x, p->n3);
            else
                for (int64_t k = 0; k < p->n3; k++) y[k * p->y3] = x[k * p->x3];
    }
}
