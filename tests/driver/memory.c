/* The double's memory, copies and kernels: for programs that use a GPU themselves.

   With these the suite that is written for a GPU can be rehearsed without one. A device's memory is
   memory of the host, and its one kernel, late.ptx, is a thread that sleeps and then copies.
*/

#define _GNU_SOURCE
#include "cuda.h"

#include <stdio.h>
#include <sys/mman.h>

enum { HOST = 1, DEVICE = 2 };

static int busy; /* kernels that have not ended */

static Result allocate(uint64_t *pointer, size_t size, int kind, unsigned managed)
{
    void *memory;
    Result result;

    if (!double_current())
        return INVALID_CONTEXT;
    if (size == 0)
        return INVALID_VALUE;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return OUT_OF_MEMORY;
    *pointer = (uint64_t)memory;
    pthread_mutex_lock(&double_lock);
    result = double_know(*pointer, size, kind, double_current()->device, managed);
    pthread_mutex_unlock(&double_lock);
    return result;
}

Result cuMemAlloc_v2(uint64_t *pointer, size_t size)
{
    return allocate(pointer, size, DEVICE, 0);
}

Result cuMemAllocAsync(uint64_t *pointer, size_t size, void *stream)
{
    (void)stream;
    return allocate(pointer, size, DEVICE, 0);
}

Result cuMemAllocManaged(uint64_t *pointer, size_t size, unsigned flags)
{
    return flags == 1 ? allocate(pointer, size, HOST, 1) : INVALID_VALUE;
}

Result cuMemFree_v2(uint64_t pointer)
{
    struct range *range;
    Result result = INVALID_VALUE;

    pthread_mutex_lock(&double_lock);
    range = double_range(pointer);
    if (range != NULL && range->start == pointer) {
        munmap((void *)pointer, range->size);
        double_forget(range);
        result = SUCCESS;
    }
    pthread_mutex_unlock(&double_lock);
    return result;
}

Result cuMemGetInfo_v2(size_t *left, size_t *total)
{
    *left = *total = (size_t)1 << 30;
    return SUCCESS;
}

Result cuMemsetD8_v2(uint64_t pointer, unsigned char value, size_t size)
{
    memset((void *)pointer, value, size);
    return SUCCESS;
}

Result cuMemcpy(uint64_t to, uint64_t from, size_t size)
{
    if (!double_current())
        return INVALID_CONTEXT;
    memcpy((void *)to, (void *)from, size);
    return SUCCESS;
}

Result cuMemcpyAsync(uint64_t to, uint64_t from, size_t size, void *handle)
{
    struct stream *stream;

    if (!double_current())
        return INVALID_CONTEXT;
    if (double_failure())
        return double_failure();
    stream = double_named(handle);
    pthread_mutex_lock(&double_lock);
    if (stream->done == stream->given)
        memcpy((void *)to, (void *)from, size);
    else
        stream->copies[stream->given++ % MOST] = (struct copy){(void *)to, (void *)from, size};
    pthread_mutex_unlock(&double_lock);
    return SUCCESS;
}

Result cuStreamCreate(struct stream **stream, unsigned flags)
{
    if (!double_current() || flags > 1)
        return INVALID_VALUE;
    *stream = calloc(1, sizeof **stream);
    (*stream)->context = double_current();
    return SUCCESS;
}

/* Wait until there is nothing left to do on a stream, or on any if that is NULL. */
static Result wait_for(struct stream *stream)
{
    bool done;

    do {
        usleep(100);
        pthread_mutex_lock(&double_lock);
        done = stream ? stream->done == stream->given : busy == 0;
        pthread_mutex_unlock(&double_lock);
    } while (!done);
    return SUCCESS;
}

Result cuStreamQuery(void *handle)
{
    struct stream *stream;
    bool done;

    if (!double_current())
        return INVALID_CONTEXT;
    stream = double_named(handle);
    pthread_mutex_lock(&double_lock);
    done = stream->done == stream->given;
    pthread_mutex_unlock(&double_lock);
    return done ? SUCCESS : NOT_READY;
}

Result cuStreamSynchronize(void *handle)
{
    return double_current() ? wait_for(double_named(handle)) : INVALID_CONTEXT;
}

Result cuCtxSynchronize(void)
{
    return double_current() ? wait_for(NULL) : INVALID_CONTEXT;
}

Result cuDeviceGetName(char *name, int size, int device)
{
    snprintf(name, size, "double %d", device);
    return SUCCESS;
}

Result cuModuleLoadData(void **module, const void *code)
{
    *module = (void *)code;
    return strstr(code, ".version") ? SUCCESS : INVALID_VALUE;
}

Result cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = module;
    return strcmp(name, "copy_late") == 0 ? SUCCESS : NOT_FOUND;
}

struct kernel {
    struct stream *stream;
    uint64_t number, nanoseconds;
};

static void *run(void *argument)
{
    struct kernel *kernel = argument;

    usleep(kernel->nanoseconds / 1000);
    pthread_mutex_lock(&double_lock);
    double_do(kernel->stream, kernel->number);
    if (--busy == 0)
        double_do(kernel->stream, kernel->stream->given); /* copies that came behind it */
    pthread_mutex_unlock(&double_lock);
    free(kernel);
    return NULL;
}

Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
    unsigned by, unsigned bz, unsigned shared, void *handle, void **arguments, void **extra)
{
    struct kernel *kernel = malloc(sizeof *kernel);
    struct stream *stream;
    pthread_t thread;

    if (!function || extra || gx * gy * gz != 1 || bx * by * bz == 0 || shared || !double_current())
        return INVALID_VALUE;
    stream = double_named(handle);
    pthread_mutex_lock(&double_lock);
    busy++;
    stream->copies[stream->given++ % MOST] =
        (struct copy){*(void **)arguments[0], *(void **)arguments[1], *(size_t *)arguments[2]};
    *kernel = (struct kernel){stream, stream->given, *(uint64_t *)arguments[3]};
    pthread_mutex_unlock(&double_lock);
    pthread_create(&thread, NULL, run, kernel);
    pthread_detach(thread);
    return SUCCESS;
}
