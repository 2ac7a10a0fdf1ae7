#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* How often an idle thread looks for work before it goes to sleep: a few hundred microseconds at most, because what
   Python does between two calls takes less, and to wake a thread may take a fifth of that. Longer would take the core
   from whoever else runs on the machine. */
enum { SPINS = 20000, LINE = 64 };

/* What one thread has to do of a step: the number of the step in the upper half, and how many of its parts nobody has
   taken in the lower half. It is one word, so that a thread that comes late can never take a part of another step than
   it thinks, in a line of its own. */
typedef struct {
    _Alignas(LINE) atomic_ullong open;
} Share;

struct Pool {
    int threads, running;
    float **work;
    int64_t floats;
    pthread_t *handles;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int sleeping, stop;
    const Step *step; /* valid while a part of it is not done */
    uint64_t number;
    Share *shares;
    _Alignas(LINE) atomic_long done;
};

typedef struct {
    Pool *pool;
    int thread;
} Start;

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t untaken(uint64_t open) { return (int64_t)(open & 0xffffffffu); }

static void run_part(const Step *step, int64_t part, float *work) {
    step->kernel->run(step->args, part, work);
    if (step->next) step->next->over(step->next_args, part, step->kernel->covers(step->args, part), work);
}

/* Where the share of a thread begins. */
static int64_t share_begins(const Pool *pool, int64_t parts, int thread) { return parts * thread / pool->threads; }

/* Runs the parts of the current step that nobody has taken of the share of `owner`. */
static void take_share(Pool *pool, int owner, int thread) {
    atomic_ullong *share = &pool->shares[owner].open;
    unsigned long long open = atomic_load(share);
    while (untaken(open)) {
        if (!atomic_compare_exchange_weak(share, &open, open - 1)) continue;
        const Step *step = pool->step;
        run_part(step, share_begins(pool, step->parts, owner + 1) - untaken(open), pool->work[thread]);
        atomic_fetch_add(&pool->done, 1);
        open = atomic_load(share);
    }
}

/* Runs parts of the current step until none is left, first those of the thread's own share: step by step they are about
   the same piece of all arrays, which so stays in the cache of one core. */
static void take_parts(Pool *pool, int thread) {
    for (int i = 0; i < pool->threads; i++) take_share(pool, (thread + i) % pool->threads, thread);
}

/* Waits for parts to take: awake at first, then asleep. */
static void await(Pool *pool, int thread) {
    atomic_ullong *share = &pool->shares[thread].open;
    for (int spin = 0; spin < SPINS; spin++) {
        if (untaken(atomic_load(share)) || atomic_load(&pool->stop)) return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleeping, 1);
    while (!untaken(atomic_load(share)) && !atomic_load(&pool->stop)) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker(void *given) {
    Start start = *(Start *)given;
    free(given);
    while (!atomic_load(&start.pool->stop)) {
        await(start.pool, start.thread);
        take_parts(start.pool, start.thread);
    }
    return NULL;
}

/* Starts the other threads; where the system refuses one, the pool has fewer. */
static void start_threads(Pool *pool) {
    while (pool->running < pool->threads) {
        Start *start = malloc(sizeof *start);
        if (!start) return;
        *start = (Start){pool, pool->running};
        if (pthread_create(&pool->handles[pool->running], NULL, worker, start)) {
            free(start);
            return;
        }
        pool->running++;
    }
}

static void wake_sleepers(Pool *pool) {
    if (!atomic_load(&pool->sleeping)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void run_step(Pool *pool, const Step *step) {
    if (step->parts <= 1 || pool->threads == 1) {
        for (int64_t part = 0; part < step->parts; part++) run_part(step, part, pool->work[0]);
        return;
    }
    start_threads(pool);
    pool->step = step;
    atomic_store(&pool->done, 0);
    pool->number++;
    for (int thread = pool->threads - 1; thread >= 0; thread--) {
        const int64_t own = share_begins(pool, step->parts, thread + 1) - share_begins(pool, step->parts, thread);
        atomic_store(&pool->shares[thread].open, pool->number << 32 | (uint64_t)own);
    }
    wake_sleepers(pool);
    take_parts(pool, 0);
    while (atomic_load(&pool->done) < step->parts) relax();
}

void pool_run(Pool *pool, const Step *steps, int64_t count) {
    for (int64_t i = 0; i < count; i++) run_step(pool, &steps[i]);
}

int pool_reserve(Pool *pool, int64_t floats) {
    if (floats <= pool->floats) return 0;
    for (int thread = 0; thread < pool->threads; thread++) {
        void *grown = NULL;
        if (posix_memalign(&grown, LINE, (size_t)(floats + LINE) * sizeof(float))) return -1;
        free(pool->work[thread]);
        pool->work[thread] = grown;
    }
    pool->floats = floats;
    return 0;
}

int64_t pool_work_bytes(const Pool *pool) { return (int64_t)sizeof(float) * pool->floats * pool->threads; }

Pool *pool_new(int threads) {
    Pool *pool = NULL;
    if (posix_memalign((void **)&pool, LINE, sizeof *pool)) return NULL;
    *pool = (Pool){.threads = threads, .running = 1};
    pool->work = calloc((size_t)threads, sizeof *pool->work);
    pool->handles = calloc((size_t)threads, sizeof *pool->handles);
    void *shares = NULL;
    if (posix_memalign(&shares, LINE, (size_t)threads * sizeof *pool->shares)) shares = NULL;
    pool->shares = shares;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (int thread = 0; shares && thread < threads; thread++) atomic_init(&pool->shares[thread].open, 0);
    if (!pool->work || !pool->handles || !shares || pool_reserve(pool, 1024)) {
        pool_free(pool);
        return NULL;
    }
    return pool;
}

void pool_free(Pool *pool) {
    atomic_store(&pool->stop, 1);
    wake_sleepers(pool);
    for (int thread = 1; thread < pool->running; thread++) pthread_join(pool->handles[thread], NULL);
    for (int thread = 0; pool->work && thread < pool->threads; thread++) free(pool->work[thread]);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->work);
    free(pool->handles);
    free(pool->shares);
    free(pool);
}
