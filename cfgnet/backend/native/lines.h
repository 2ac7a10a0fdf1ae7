/* Lines of images with zeros around them, as convolutions read them.

   With enough zeros at the top, at the left and at the ends, no element of a kernel lies outside, and what one row of a
   kernel sees lies together: kernel_w * depth floats. So a row of a kernel is one piece of a sum.

   Lines are counted over all samples, `span` of them per sample, zeros included. Where no zeros are needed, and all
   channels are wanted, they are the image itself; otherwise some of them are copied at a time, which takes next to no
   time beside what is computed from them. */

typedef struct {
    const float *image; /* (samples, height, width, channels), from the first channel that is wanted on */
    int64_t height, width, channels;
    int64_t top, left;   /* zeros */
    int64_t span, pitch; /* lines per sample and pixels per line, zeros included */
    int64_t step;        /* floats from pixel to pixel: the channels that are wanted, or all of the image's */
    int copied;
} Lines;

/* Of an image of which `depth` channels are wanted, where kernels see `span` lines of `pitch` pixels, of which `top` and
   `left` lie before the image. */
static Lines lines_of(const float *image, int64_t height, int64_t width, int64_t channels, int64_t depth, int64_t top,
                      int64_t left, int64_t span, int64_t pitch) {
    Lines l = {image, height, width, channels, top, left, larger(span, height), larger(pitch, width), channels, 0};
    l.copied = top || left || l.span > height || l.pitch > width;
    if (l.copied) l.step = depth, l.span = span, l.pitch = pitch;
    return l;
}

static void copy_floats(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t some = smaller(LANES, n - i);
        store_some(to + i, load_some(from + i, some), some);
    }
}

static void clear_floats(float *to, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) store_some(to + i, splat(0), smaller(LANES, n - i));
}

/* One line, zeros included. */
static void copy_line(const Lines *l, int64_t line, float *to) {
    const int64_t y = line % l->span - l->top, pixels = smaller(l->width, l->pitch - l->left);
    if ((uint64_t)y >= (uint64_t)l->height) {
        clear_floats(to, l->pitch * l->step);
        return;
    }
    const float *from = l->image + (line / l->span * l->height + y) * l->width * l->channels;
    float *inside = to + l->left * l->step;
    clear_floats(to, l->left * l->step);
    if (l->step == l->channels)
        copy_floats(inside, from, pixels * l->step);
    else
        for (int64_t x = 0; x < pixels; x++) copy_floats(inside + x * l->step, from + x * l->channels, l->step);
    clear_floats(inside + pixels * l->step, (l->pitch - l->left - pixels) * l->step);
}

/* Where line `first` lies, with those up to `stop` behind it; copies go to `work`. */
static const float *find_lines(const Lines *l, int64_t first, int64_t stop, float *work) {
    if (!l->copied) return l->image + first * l->pitch * l->step;
    for (int64_t line = first; line < stop; line++) copy_line(l, line, work + (line - first) * l->pitch * l->step);
    return work;
}

/* How many floats `lines` of them take in `work`. */
static int64_t lines_work(const Lines *l, int64_t lines) {
    return l->copied ? whole_vectors(lines * l->pitch * l->step) : 0;
}
