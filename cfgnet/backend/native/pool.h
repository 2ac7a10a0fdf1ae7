/* A pool of threads that share out the parts of calls. */
#pragma once
#include "call.h"

typedef struct Pool Pool;

/* A step of a program: a kernel with its arguments, and into how many parts it is cut; and what goes on with the result
   of each part, or NULL. */
typedef struct {
    const Kernel *kernel;
    const void *args;
    int64_t parts;
    const Kernel *next;
    const void *next_args;
} Step;

/* A pool of `threads`, the calling one included; NULL without memory. The others start with the first work. */
Pool *pool_new(int threads);
void pool_free(Pool *pool);
/* Makes sure that each thread has `floats` of workspace; 0, or -1 without memory. */
int pool_reserve(Pool *pool, int64_t floats);
/* The bytes of that workspace, of all threads. */
int64_t pool_work_bytes(const Pool *pool);
/* Runs steps one after another, the parts of each side by side. */
void pool_run(Pool *pool, const Step *steps, int64_t count);
