/* The Python side: Pool(threads, isa) makes calls, pool.call("conv", x=..., ...), and programs of calls. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "pool.h"

static const Isa *const ISAS[] = {
#ifdef __x86_64__
    &isa_avx512, &isa_avx2,
#endif
    &isa_baseline};
enum { ISA_COUNT = sizeof ISAS / sizeof *ISAS };

typedef struct {
    PyObject_HEAD
    Pool *pool;
    const Isa *isa;
    int threads;
} PoolObject;

typedef struct {
    PyObject_HEAD
    PoolObject *pool;
    int64_t count;
    Step *steps;
    void *args;     /* of a single call, whose own fields these are */
    PyObject *kept; /* what the arguments point to: arrays, buffers, other calls */
} CallObject;

static PyTypeObject PoolType, CallType;

/* Arguments. */

static void release(PyObject *capsule) {
    Py_buffer *view = PyCapsule_GetPointer(capsule, NULL);
    PyBuffer_Release(view);
    PyMem_Free(view);
}

/* The address of an array of `format`; its memory stays alive with `kept`. */
static void *address(PyObject *array, char format, const char *name, PyObject *kept) {
    Py_buffer *view = PyMem_Calloc(1, sizeof *view);
    if (!view || PyObject_GetBuffer(array, view, PyBUF_STRIDES | PyBUF_FORMAT)) {
        PyMem_Free(view);
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(view, NULL, release);
    if (!capsule) {
        PyBuffer_Release(view);
        PyMem_Free(view);
        return NULL;
    }
    int failed = PyList_Append(kept, capsule);
    Py_DECREF(capsule);
    if (failed) return NULL;
    if (!view->format || view->format[0] != format || view->format[1]) {
        PyErr_Format(PyExc_TypeError, "%s: expected an array of '%c', got '%s'", name, format,
                     view->format ? view->format : "?");
        return NULL;
    }
    return view->buf;
}

static int set_list(void *target, PyObject *given, const char *name, PyObject *kept) {
    PyObject *items = PySequence_Tuple(given);
    if (!items) return -1;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    PyObject *holder = PyBytes_FromStringAndSize(NULL, (count + 1) * (Py_ssize_t)sizeof(void *));
    int failed = !holder || PyList_Append(kept, holder);
    void **addresses = failed ? NULL : (void **)PyBytes_AS_STRING(holder);
    for (Py_ssize_t i = 0; !failed && i < count; i++)
        failed = !(addresses[i] = address(PyTuple_GET_ITEM(items, i), 'f', name, kept));
    *(void **)target = addresses;
    Py_XDECREF(holder);
    Py_DECREF(items);
    return failed ? -1 : 0;
}

static int set_field(void *target, const Field *field, PyObject *given, PyObject *kept) {
    switch (field->kind) {
    case 'A':
    case 'W':
        if (given == Py_None) return *(void **)target = NULL, 0;
        *(void **)target = address(given, field->kind == 'A' ? 'f' : 'i', field->name, kept);
        return *(void **)target ? 0 : -1;
    case 'L':
        return set_list(target, given, field->name, kept);
    case 'C':
        if (given == Py_None) return *(void **)target = NULL, 0;
        if (!PyObject_TypeCheck(given, &CallType) || !((CallObject *)given)->args) {
            PyErr_Format(PyExc_TypeError, "%s: expected a call", field->name);
            return -1;
        }
        *(void **)target = ((CallObject *)given)->args;
        return PyList_Append(kept, given);
    case 'I':
        *(int64_t *)target = PyLong_AsLongLong(given);
        return PyErr_Occurred() ? -1 : 0;
    default:
        *(double *)target = PyFloat_AsDouble(given);
        return PyErr_Occurred() ? -1 : 0;
    }
}

static int set_fields(CallObject *call, const Kernel *kernel, PyObject *given) {
    if (!given || PyDict_GET_SIZE(given) != kernel->count) {
        PyErr_Format(PyExc_TypeError, "%s takes %d arguments", kernel->name, kernel->count);
        return -1;
    }
    for (int i = 0; i < kernel->count; i++) {
        PyObject *value = PyDict_GetItemString(given, kernel->fields[i].name);
        if (!value) {
            PyErr_Format(PyExc_TypeError, "%s: %s is missing", kernel->name, kernel->fields[i].name);
            return -1;
        }
        if (set_field((char *)call->args + 8 * i, &kernel->fields[i], value, call->kept)) return -1;
    }
    return 0;
}

/* Call: one kernel with its arguments, or a program of several. */

static CallObject *call_new(PoolObject *pool, int64_t count) {
    CallObject *call = PyObject_New(CallObject, &CallType);
    if (!call) return NULL;
    Py_INCREF(pool);
    call->pool = pool;
    call->count = count;
    call->args = NULL;
    call->steps = PyMem_Calloc((size_t)count + 1, sizeof *call->steps);
    call->kept = PyList_New(0);
    if (call->steps && call->kept) return call;
    Py_DECREF(call);
    return (CallObject *)PyErr_NoMemory();
}

static void call_free(CallObject *call) {
    PyMem_Free(call->steps);
    PyMem_Free(call->args);
    Py_XDECREF(call->kept);
    Py_DECREF(call->pool);
    PyObject_Free(call);
}

static PyObject *call_run(CallObject *call, PyObject *args, PyObject *named) {
    Py_BEGIN_ALLOW_THREADS
    pool_run(call->pool->pool, call->steps, call->count);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* The last step that covers its result, behind which others may complete sums; NULL where a map cannot go on with it. */
static Step *covering_step(const CallObject *call) {
    int64_t at = call->count - 1;
    while (at >= 0 && !call->steps[at].kernel->covers) at--;
    return at >= 0 && !call->steps[at].next ? &call->steps[at] : NULL;
}

static PyObject *call_parts(CallObject *call, void *unused) {
    const Step *step = covering_step(call);
    return PyLong_FromLongLong(step ? step->parts : 0);
}

static PyObject *call_covers(CallObject *call, void *unused) { return PyBool_FromLong(covering_step(call) != NULL); }

static PyGetSetDef CALL_PROPERTIES[] = {
    {"covers", (getter)call_covers, NULL, "Whether there is a step with whose parts a map can go on.", NULL},
    {"parts", (getter)call_parts, NULL, "Into how many parts that step is cut.", NULL},
    {0},
};

static PyTypeObject CallType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "cfgnet.backend.native._native.Call",
    .tp_doc = "One kernel bound to its arguments, or several in turn; calling it computes.",
    .tp_basicsize = sizeof(CallObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)call_free,
    .tp_call = (ternaryfunc)call_run,
    .tp_getset = CALL_PROPERTIES,
};

/* Pool. */

static PyObject *pool_make(PyTypeObject *type, PyObject *args, PyObject *named) {
    static char *names[] = {"threads", "isa", NULL};
    int threads;
    const char *isa;
    if (!PyArg_ParseTupleAndKeywords(args, named, "is", names, &threads, &isa)) return NULL;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(ISAS[i]->name, isa) || !ISAS[i]->usable()) continue;
        PoolObject *made = PyObject_New(PoolObject, type);
        if (!made) return NULL;
        made->isa = ISAS[i];
        made->threads = threads < 1 ? 1 : threads;
        if ((made->pool = pool_new(made->threads))) return (PyObject *)made;
        Py_DECREF(made);
        return PyErr_NoMemory();
    }
    return PyErr_Format(PyExc_ValueError, "this processor does not run %s", isa);
}

static void pool_dealloc(PoolObject *pool) {
    if (pool->pool) {
        Py_BEGIN_ALLOW_THREADS
        pool_free(pool->pool);
        Py_END_ALLOW_THREADS
    }
    PyObject_Free(pool);
}

static PyObject *pool_call(PoolObject *pool, PyObject *args, PyObject *named) {
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name)) return NULL;
    for (int i = 0; i < pool->isa->count; i++) {
        const Kernel *kernel = &pool->isa->kernels[i];
        if (strcmp(kernel->name, name)) continue;
        CallObject *call = call_new(pool, 1);
        if (!call) return NULL;
        call->args = PyMem_Calloc((size_t)kernel->count + 1, 8);
        if (!call->args || set_fields(call, kernel, named)) {
            if (!call->args) PyErr_NoMemory();
            Py_DECREF(call);
            return NULL;
        }
        Demand demand = kernel->demand(call->args);
        call->steps[0] = (Step){kernel, call->args, demand.parts, NULL, NULL};
        if (pool_reserve(pool->pool, demand.work)) {
            Py_DECREF(call);
            return PyErr_NoMemory();
        }
        return (PyObject *)call;
    }
    return PyErr_Format(PyExc_ValueError, "there is no kernel %s", name);
}

static PyObject *pool_program(PoolObject *pool, PyObject *given) {
    PyObject *calls = PySequence_Tuple(given);
    if (!calls) return NULL;
    int64_t count = 0, at = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(calls); i++) {
        PyObject *each = PyTuple_GET_ITEM(calls, i);
        if (!PyObject_TypeCheck(each, &CallType) || ((CallObject *)each)->pool != pool) {
            Py_DECREF(calls);
            return PyErr_Format(PyExc_TypeError, "a program consists of calls of one pool");
        }
        count += ((CallObject *)each)->count;
    }
    CallObject *program = call_new(pool, count);
    for (Py_ssize_t i = 0; program && i < PyTuple_GET_SIZE(calls); i++) {
        CallObject *each = (CallObject *)PyTuple_GET_ITEM(calls, i);
        memcpy(program->steps + at, each->steps, (size_t)each->count * sizeof *each->steps);
        at += each->count;
    }
    if (program && PyList_Append(program->kept, calls)) Py_CLEAR(program);
    Py_DECREF(calls);
    return (PyObject *)program;
}

static PyObject *pool_followed(PoolObject *pool, PyObject *args) {
    CallObject *first, *next;
    if (!PyArg_ParseTuple(args, "O!O!", &CallType, &first, &CallType, &next)) return NULL;
    const Step *over = next->steps;
    if (!covering_step(first) || next->count != 1 || !over->kernel->over)
        return PyErr_Format(PyExc_ValueError, "the second call cannot go on with the parts of the first");
    PyObject *both = Py_BuildValue("(OO)", first, next);
    CallObject *call = both ? call_new(pool, first->count) : NULL;
    if (call) {
        memcpy(call->steps, first->steps, (size_t)first->count * sizeof *first->steps);
        Step *step = covering_step(call);
        step->next = over->kernel;
        step->next_args = over->args;
        if (PyList_Append(call->kept, both)) Py_CLEAR(call);
    }
    Py_XDECREF(both);
    return (PyObject *)call;
}

static PyObject *pool_lanes(PoolObject *pool, void *unused) { return PyLong_FromLong(pool->isa->lanes); }
static PyObject *pool_held(PoolObject *pool, void *unused) { return PyLong_FromLongLong(pool_work_bytes(pool->pool)); }
static PyObject *pool_threads(PoolObject *pool, void *unused) { return PyLong_FromLong(pool->threads); }

static PyGetSetDef POOL_PROPERTIES[] = {
    {"lanes", (getter)pool_lanes, NULL, "How many float32 a vector holds.", NULL},
    {"work_bytes", (getter)pool_held, NULL, "The bytes of the workspace of all threads.", NULL},
    {"threads", (getter)pool_threads, NULL, "How many threads share the parts.", NULL},
    {0},
};

static PyMethodDef POOL_METHODS[] = {
    {"call", (PyCFunction)(void (*)(void))pool_call, METH_VARARGS | METH_KEYWORDS,
     "call(kernel, **arguments): the kernel bound to its arguments."},
    {"followed", (PyCFunction)pool_followed, METH_VARARGS,
     "followed(call, map): one call in which the map goes on with each part of the step that covers its result."},
    {"program", (PyCFunction)pool_program, METH_O, "program(calls): one call that runs calls in turn."},
    {0},
};

static PyTypeObject PoolType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "cfgnet.backend.native._native.Pool",
    .tp_doc = "Pool(threads, isa): threads that run kernels for one set of vector instructions.",
    .tp_basicsize = sizeof(PoolObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = pool_make,
    .tp_dealloc = (destructor)pool_dealloc,
    .tp_methods = POOL_METHODS,
    .tp_getset = POOL_PROPERTIES,
};

/* The module. */

static PyObject *isas(PyObject *module, PyObject *unused) {
    PyObject *found = PyList_New(0);
    for (int i = 0; found && i < ISA_COUNT; i++) {
        if (!ISAS[i]->usable()) continue;
        PyObject *name = PyUnicode_FromString(ISAS[i]->name);
        if (!name || PyList_Append(found, name)) Py_CLEAR(found);
        Py_XDECREF(name);
    }
    return found;
}

static PyMethodDef FUNCTIONS[] = {
    {"isas", isas, METH_NOARGS, "The sets of vector instructions that this processor runs, the fastest first."}, {0}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_native", "Kernels in C; cfgnet.backend.native is their Python side.", -1, FUNCTIONS};

PyMODINIT_FUNC PyInit__native(void) {
    if (PyType_Ready(&PoolType) || PyType_Ready(&CallType)) return NULL;
    PyObject *module = PyModule_Create(&MODULE);
    if (module && (PyModule_AddObjectRef(module, "Pool", (PyObject *)&PoolType) ||
                   PyModule_AddObjectRef(module, "Call", (PyObject *)&CallType)))
        Py_CLEAR(module);
    return module;
}
