/* What every kernel is: a table of fields, which Python fills by name, and a function that computes one part.

   A kernel declares its fields once, in a macro FIELDS_name(A, W, L, C, I, F); from that follow its struct and the table
   by which module.c reads the arguments. Each field takes 8 bytes:

     A  float *       an array of float32, or NULL for None
     W  int32_t *     an array of int32, or NULL for None
     L  float **      a sequence of float32 arrays
     C  void *        another call, or NULL for None
     I  int64_t       a whole number
     F  double        a number

   `demand` says into how many parts the work is cut, and how many floats of workspace a part needs. `run` computes one
   part; parts run in any order, on any thread, and what a part computes depends on its number only.

   A kernel that `covers` its result tells which of its elements are written when a part ends. One that can work `over`
   such elements may be put behind it, and finds them in the cache. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t parts, work;
} Demand;

typedef struct {
    const char *name;
    char kind;
} Field;

typedef struct {
    int64_t first, count;
} Range;

typedef struct {
    const char *name;
    const Field *fields;
    int count;
    Demand (*demand)(const void *args);
    void (*run)(const void *args, int64_t part, float *work);
    Range (*covers)(const void *args, int64_t part);
    void (*over)(const void *args, int64_t part, Range range, float *work);
} Kernel;

typedef struct {
    const char *name;
    int lanes;
    int (*usable)(void);
    const Kernel *kernels;
    int count;
} Isa;

extern const Isa isa_avx512, isa_avx2, isa_baseline;

#define MEMBER_A(name) float *name;
#define MEMBER_W(name) int32_t *name;
#define MEMBER_L(name) float **name;
#define MEMBER_C(name) const void *name;
#define MEMBER_I(name) int64_t name;
#define MEMBER_F(name) double name;
#define FIELD_A(name) {#name, 'A'},
#define FIELD_W(name) {#name, 'W'},
#define FIELD_L(name) {#name, 'L'},
#define FIELD_C(name) {#name, 'C'},
#define FIELD_I(name) {#name, 'I'},
#define FIELD_F(name) {#name, 'F'},

/* Declares the struct and the table of fields of a kernel. */
#define DECLARE(kernel)                                                                                       \
    typedef struct {                                                                                          \
        FIELDS_##kernel(MEMBER_A, MEMBER_W, MEMBER_L, MEMBER_C, MEMBER_I, MEMBER_F)                           \
    } kernel##_args;                                                                                          \
    static const Field kernel##_fields[] = {                                                                  \
        FIELDS_##kernel(FIELD_A, FIELD_W, FIELD_L, FIELD_C, FIELD_I, FIELD_F)};

/* An entry of the table of kernels; several kernels may share the fields and the demand of one. */
#define ENTRY_OF(name, kernel, covers, over)                                                                  \
    {#name, kernel##_fields, sizeof kernel##_fields / sizeof(Field), kernel##_demand, name##_run, covers, over}
#define ENTRY_AS(name, kernel) ENTRY_OF(name, kernel, NULL, NULL)
#define ENTRY(kernel) ENTRY_OF(kernel, kernel, NULL, NULL)
#define ENTRY_COVERING(kernel) ENTRY_OF(kernel, kernel, kernel##_covers, NULL)
