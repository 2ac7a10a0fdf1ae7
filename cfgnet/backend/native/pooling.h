/* Pooling in two dimensions, over arrays (samples, height, width, channels), one vector of channels at a time. */

#define FIELDS_pool(A, W, L, C, I, F)                                                                          \
    A(x) A(y) A(dy) A(dx) A(u) A(factor) I(samples) I(channels) I(x_h) I(x_w) I(y_h) I(y_w)                         \
    I(kernel_h) I(kernel_w) I(stride_h) I(stride_w) I(pad_h) I(pad_w) I(dilation_h) I(dilation_w)
DECLARE(pool)

static Demand pool_demand(const void *args) { return (Demand){((const pool_args *)args)->samples, 0}; }

/* The elements of the kernel that lie inside of the input, along one axis: at + i * dilation for first <= i < stop. */
INLINE int64_t taps_inside(int64_t at, int64_t kernel, int64_t dilation, int64_t size, int64_t *first) {
    *first = at < 0 ? ceil_div(-at, dilation) : 0;
    return smaller(kernel, at < size ? ceil_div(size - at, dilation) : 0);
}

/* Runs BODY for each window of a sample and each vector of n channels from c on, between BEGIN and END; in it, `seen`
   is where an element of the window lies in x and in dx, and `out` where the window lies in y and dy. AHEAD runs before
   each line y of windows. */
#define EACH_TAP(BODY)                                                                                         \
    for (int64_t ky = ky0, line = first + c; ky < ky1; ky++, line += down)                                     \
        for (int64_t kx = kx0, seen = line; kx < kx1; kx++, seen += across) BODY
#define ONE_WINDOW(N, BEGIN, BODY, END)                                                                        \
    {                                                                                                          \
        const int64_t n = N;                                                                                   \
        BEGIN;                                                                                                 \
        EACH_TAP(BODY);                                                                                        \
        END;                                                                                                   \
    }
#define EACH_WINDOW(AHEAD, BEGIN, BODY, END)                                                                   \
    const pool_args *p = args;                                                                                 \
    const int64_t from = part * p->x_h * p->x_w * p->channels, to = part * p->y_h * p->y_w * p->channels;      \
    const int64_t across = p->dilation_w * p->channels, down = p->dilation_h * p->x_w * p->channels;           \
    for (int64_t y = 0; y < p->y_h; y++) {                                                                     \
        AHEAD;                                                                                                 \
        for (int64_t x = 0; x < p->y_w; x++) {                                                                 \
            const int64_t top = y * p->stride_h - p->pad_h, left = x * p->stride_w - p->pad_w;                 \
            int64_t ky0, kx0;                                                                                  \
            const int64_t ky1 = taps_inside(top, p->kernel_h, p->dilation_h, p->x_h, &ky0);                    \
            const int64_t kx1 = taps_inside(left, p->kernel_w, p->dilation_w, p->x_w, &kx0);                   \
            const int64_t first = from + (top * p->x_w + left) * p->channels + ky0 * down + kx0 * across;      \
            for (int64_t c = 0; c < p->channels; c += LANES) {                                                 \
                const int64_t out = to + (y * p->y_w + x) * p->channels + c;                                   \
                if (c + LANES <= p->channels)                                                                  \
                    ONE_WINDOW(LANES, BEGIN, BODY, END)                                                        \
                else                                                                                           \
                    ONE_WINDOW(p->channels - c, BEGIN, BODY, END)                                              \
            }                                                                                                  \
        }                                                                                                      \
    }

/* How many lines of the input the windows up to line y see, or pass over. */
INLINE int64_t lines_seen(const pool_args *p, int64_t y) {
    if (y + 1 == p->y_h) return p->x_h;
    return larger(0, smaller(p->x_h, y * p->stride_h - p->pad_h + (p->kernel_h - 1) * p->dilation_h + 1));
}

/* Asks for the lines of x that the next line of windows is the first to see, which after the last is one of the next
   sample: of a large batch they are not in the cache, and windows read them in an order that the processor does not
   foresee. */
INLINE void fetch_next(const pool_args *p, int64_t part, int64_t y) {
    const int64_t line = p->x_w * p->channels;
    const float *x = p->x + part * p->x_h * line;
    const int64_t stop = (y + 1 < p->y_h ? lines_seen(p, y + 1) : p->x_h + lines_seen(p, 0)) * line;
    for (int64_t i = lines_seen(p, y) * line; i < stop; i += LINE) __builtin_prefetch(x + i, 0, 2);
}

/* y = the largest x of each window. */
static void pool_max_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW(fetch_next(p, part, y), vec best = splat(-__builtin_inff()),
                best = vmaximum(best, load_some(p->x + seen, n)), store_some(p->y + out, best, n))
}

/* y = the sum of each window, times its factor. */
static void pool_ave_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW(fetch_next(p, part, y), vec sum = splat(0), sum += load_some(p->x + seen, n),
                store_some(p->y + out, sum * p->factor[y * p->y_w + x], n))
}

static Range pool_y_covers(const void *args, int64_t part) {
    const pool_args *p = args;
    const int64_t size = p->y_h * p->y_w * p->channels;
    return (Range){part * size, size};
}

static Range pool_x_covers(const void *args, int64_t part) {
    const pool_args *p = args;
    const int64_t size = p->x_h * p->x_w * p->channels;
    return (Range){part * size, size};
}

/* Clears the lines of dx that windows of line y are the first to see, while they are about to be added to. */
INLINE void clear_lines(const pool_args *p, int64_t part, int64_t y) {
    const int64_t first = y ? lines_seen(p, y - 1) : 0, line = p->x_w * p->channels;
    clear_floats(p->dx + (part * p->x_h + first) * line, (lines_seen(p, y) - first) * line);
}

INLINE void add_some(float *to, vec more, int64_t n) { store_some(to, load_some(to, n) + more, n); }

/* dx += dy at the first element of each window that is y. */
static void pool_max_dx_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW((fetch_next(p, part, y), clear_lines(p, part, y)), const vec best = load_some(p->y + out, n);
                vec up = load_some(p->dy + out, n), {
        const ivec won = load_some(p->x + seen, n) == best;
        add_some(p->dx + seen, choose(won, up, splat(0)), n);
        up = choose(won, splat(0), up);
    }, (void)0)
}

/* The same where each element lies in exactly one window; dx may lie in the place of x. */
static void pool_max_dx_tiles_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW(fetch_next(p, part, y), const vec best = load_some(p->y + out, n); vec up = load_some(p->dy + out, n), {
        const ivec won = load_some(p->x + seen, n) == best;
        store_some(p->dx + seen, choose(won, up, splat(0)), n);
        up = choose(won, splat(0), up);
    }, (void)0)
}

/* dx += dy times its factor, all over each window. */
static void pool_ave_dx_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW(clear_lines(p, part, y), const vec up = load_some(p->dy + out, n) * p->factor[y * p->y_w + x],
                add_some(p->dx + seen, up, n), (void)0)
}

/* Of the positive elements of a window one is drawn, with a probability in proportion to it: the first up to which
   they sum to more than u times the sum of all. DRAWN is where that is the one seen last. */
#define POSITIVE vmaximum(load_some(p->x + seen, n), splat(0))
#define THRESHOLD                                                                                              \
    vec all = splat(0);                                                                                        \
    EACH_TAP(all += POSITIVE);                                                                                 \
    vec sum = splat(0);                                                                                        \
    const vec threshold = all * load_some(p->u + out, n)
#define DRAWN                                                                                                  \
    const ivec before = sum > threshold;                                                                       \
    sum += POSITIVE;                                                                                           \
    const ivec drawn = (sum > threshold) & ~before

/* y = the element drawn from each window. */
static void pool_draw_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW((void)0, THRESHOLD; vec found = splat(0), {
        DRAWN;
        found = choose(drawn, load_some(p->x + seen, n), found);
    }, store_some(p->y + out, found, n))
}

/* dx += dy at the element drawn from each window. */
static void pool_draw_dx_run(const void *args, int64_t part, float *work) {
    EACH_WINDOW(clear_lines(p, part, y), THRESHOLD; const vec up = load_some(p->dy + out, n), {
        DRAWN;
        add_some(p->dx + seen, choose(drawn, up, splat(0)), n);
    }, (void)0)
}
