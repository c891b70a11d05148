/* CUDA's driver as far as nixl_connect asks it, with no GPU behind it.

   For what needs no GPU to be wrong: which contexts are pushed and popped, what is waited for, what
   is left. Devices are ranges of addresses and streams are counters, both set by the test. It moves
   nothing but what it is told to copy, between addresses of the host. It is strict where the real
   driver is: an event belongs to a context, and is recorded in a stream of the same one, which has
   to be current.

   Source of the declarations: the CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api/
*/

#define _GNU_SOURCE
#include "cuda.h"

pthread_mutex_t double_lock = PTHREAD_MUTEX_INITIALIZER;
static struct context primary[DEVICES] = {{0}, {1}};
static struct stream defaults[DEVICES] = {{.context = &primary[0]}, {.context = &primary[1]}};
static struct range ranges[MOST];
static void *pinned[MOST];
static int pinned_count, range_count, event_count, retained, failure;
static __thread struct context *stack[DEPTH];
static __thread int depth;
static int captures;
static __thread int capture_mode; /* of this thread: 0 global, 2 relaxed */

struct context *double_current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

/* --- what the files share ------------------------------------------------------------------- */

Result double_know(uint64_t start, uint64_t size, int kind, int device, unsigned managed)
{
    if (range_count == MOST)
        return OUT_OF_MEMORY;
    ranges[range_count++] = (struct range){start, size, kind, device, managed};
    return SUCCESS;
}

struct range *double_range(uint64_t pointer)
{
    for (int i = 0; i < range_count; i++)
        if (pointer >= ranges[i].start && pointer - ranges[i].start < ranges[i].size)
            return &ranges[i];
    return NULL;
}

void double_forget(struct range *range)
{
    *range = ranges[--range_count];
}

void double_do(struct stream *stream, uint64_t number)
{
    while (stream->done < number) {
        struct copy *copy = &stream->copies[stream->done++ % MOST];
        if (copy->to != NULL)
            memcpy(copy->to, copy->from, copy->size);
        copy->to = NULL;
    }
}

/* --- what tests set and see ----------------------------------------------------------------- */

int double_map(uint64_t start, uint64_t size, int kind, int device, unsigned managed)
{
    return double_know(start, size, kind, device, managed);
}

void double_unmap(uint64_t start)
{
    double_forget(double_range(start));
}

void *double_stream(int device)
{
    struct stream *stream = calloc(1, sizeof *stream);
    stream->context = malloc(sizeof *stream->context); /* not the device's primary one */
    stream->context->device = device;
    return stream;
}

void *double_default_stream(int device)
{
    return &defaults[device];
}

/* Give a stream something to do: a copy, or nothing but time if `to` is NULL. */
void double_give(struct stream *stream, void *to, const void *from, size_t size)
{
    pthread_mutex_lock(&double_lock);
    stream->copies[stream->given++ % MOST] = (struct copy){to, from, size};
    pthread_mutex_unlock(&double_lock);
}

/* Do all that a stream has been given. */
void double_finish(struct stream *stream)
{
    pthread_mutex_lock(&double_lock);
    double_do(stream, stream->given);
    pthread_mutex_unlock(&double_lock);
}

/* Have a stream be captured in a graph: whatever is asked of others, then, by a thread that has not
   said that it does not mind, is refused. */
void double_capture(struct stream *stream, bool capturing)
{
    stream->capturing = capturing;
    captures += capturing ? 1 : -1;
}

/* Have every question after an event, and every copy, answered with this result. */
void double_fail(int result)
{
    failure = result;
}

Result double_failure(void)
{
    return failure;
}

int double_events(void)
{
    return event_count;
}

int double_retained(void)
{
    return retained;
}

int double_pinned(void)
{
    return pinned_count;
}

int double_depth(void)
{
    return depth;
}

/* --- the driver ----------------------------------------------------------------------------- */

Result cuInit(unsigned flags)
{
    return flags ? INVALID_VALUE : SUCCESS;
}

Result cuDriverGetVersion(int *version)
{
    *version = 12090;
    return SUCCESS;
}

Result cuDeviceGetCount(int *count)
{
    *count = DEVICES;
    return SUCCESS;
}

Result cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return ordinal < 0 || ordinal >= DEVICES ? 101 : SUCCESS;
}

Result cuPointerGetAttribute(void *data, int attribute, uint64_t pointer)
{
    Result result = SUCCESS;
    struct range *range;

    pthread_mutex_lock(&double_lock);
    range = double_range(pointer);
    if (range == NULL)
        result = INVALID_VALUE;
    else
        switch (attribute) {
        case MEMORY_TYPE: *(unsigned *)data = range->kind; break;
        case IS_MANAGED: *(unsigned *)data = range->managed; break;
        case DEVICE_ORDINAL: *(int *)data = range->device; break;
        case RANGE_START: *(uint64_t *)data = range->start; break;
        case RANGE_SIZE: *(size_t *)data = range->size; break;
        default: result = INVALID_VALUE;
        }
    pthread_mutex_unlock(&double_lock);
    return result;
}

Result cuDevicePrimaryCtxRetain(struct context **context, int device)
{
    retained++;
    *context = &primary[device];
    return SUCCESS;
}

Result cuCtxGetCurrent(struct context **context)
{
    *context = double_current();
    return SUCCESS;
}

Result cuCtxGetDevice(int *device)
{
    if (!depth)
        return INVALID_CONTEXT;
    *device = double_current()->device;
    return SUCCESS;
}

Result cuCtxSetCurrent(struct context *context)
{
    depth = depth ? depth : 1;
    stack[depth - 1] = context;
    return SUCCESS;
}

Result cuCtxPushCurrent(struct context *context)
{
    if (context == NULL || depth == DEPTH)
        return INVALID_CONTEXT;
    stack[depth++] = context;
    return SUCCESS;
}

Result cuCtxPopCurrent(struct context **context)
{
    if (!depth)
        return INVALID_CONTEXT;
    *context = stack[--depth];
    return SUCCESS;
}

struct stream *double_named(void *handle)
{
    return (uintptr_t)handle > 2 ? handle : &defaults[double_current()->device];
}

Result cuStreamGetCtx(void *handle, struct context **context)
{
    if ((uintptr_t)handle <= 2 && !depth)
        return INVALID_CONTEXT;
    *context = double_named(handle)->context;
    return SUCCESS;
}

Result cuThreadExchangeStreamCaptureMode(int *mode)
{
    int old = capture_mode;

    capture_mode = *mode;
    *mode = old;
    return SUCCESS;
}

Result cuStreamIsCapturing(void *handle, int *status)
{
    *status = double_named(handle)->capturing;
    return SUCCESS;
}

Result cuEventCreate(struct event **event, unsigned flags)
{
    (void)flags;
    if (!depth)
        return INVALID_CONTEXT;
    *event = calloc(1, sizeof **event);
    (*event)->context = double_current();
    pthread_mutex_lock(&double_lock);
    event_count++;
    pthread_mutex_unlock(&double_lock);
    return SUCCESS;
}

Result cuEventRecord(struct event *event, void *handle)
{
    struct stream *stream;

    if (!depth)
        return INVALID_CONTEXT;
    stream = double_named(handle);
    if (event->context != stream->context || event->context != double_current())
        return INVALID_HANDLE;
    pthread_mutex_lock(&double_lock);
    event->stream = stream;
    event->number = stream->given;
    pthread_mutex_unlock(&double_lock);
    return SUCCESS;
}

Result cuEventQuery(struct event *event)
{
    bool done;

    if (captures && capture_mode != 2)
        return CAPTURE_UNSUPPORTED;
    if (failure)
        return failure;
    if (event->context != double_current())
        return INVALID_CONTEXT;
    pthread_mutex_lock(&double_lock);
    done = event->stream == NULL || event->stream->done >= event->number;
    pthread_mutex_unlock(&double_lock);
    return done ? SUCCESS : NOT_READY;
}

Result cuEventDestroy(struct event *event)
{
    if (event->context != double_current())
        return INVALID_CONTEXT;
    pthread_mutex_lock(&double_lock);
    event_count--;
    pthread_mutex_unlock(&double_lock);
    free(event);
    return SUCCESS;
}

Result cuMemHostRegister_v2(void *pointer, size_t size, unsigned flags)
{
    if (!depth || flags != 1 || (uintptr_t)pointer % 4096 || size % 4096)
        return INVALID_VALUE;
    pthread_mutex_lock(&double_lock);
    pinned[pinned_count++] = pointer;
    double_know((uint64_t)pointer, size, 1, 0, 0);
    pthread_mutex_unlock(&double_lock);
    return SUCCESS;
}

Result cuMemHostUnregister(void *pointer)
{
    Result result = INVALID_VALUE;

    if (!depth)
        return INVALID_CONTEXT;
    /* The real driver would fault on memory that is not mapped any more. */
    *(volatile char *)pointer;
    pthread_mutex_lock(&double_lock);
    for (int i = 0; i < pinned_count; i++)
        if (pinned[i] == pointer) {
            pinned[i] = pinned[--pinned_count];
            double_forget(double_range((uint64_t)pointer));
            result = SUCCESS;
        }
    pthread_mutex_unlock(&double_lock);
    return result;
}

Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags, int *status);

static const struct {
    const char *name;
    void *function;
} functions[] = {
#define ENTRY(name) {#name, (void *)name}
    ENTRY(cuInit),
    ENTRY(cuDriverGetVersion),
    ENTRY(cuDeviceGetCount),
    ENTRY(cuDeviceGet),
    ENTRY(cuPointerGetAttribute),
    ENTRY(cuDevicePrimaryCtxRetain),
    ENTRY(cuCtxGetCurrent),
    ENTRY(cuCtxGetDevice),
    ENTRY(cuCtxPushCurrent),
    ENTRY(cuCtxPopCurrent),
    ENTRY(cuStreamGetCtx),
    ENTRY(cuCtxSetCurrent),
    ENTRY(cuThreadExchangeStreamCaptureMode),
    ENTRY(cuStreamIsCapturing),
    ENTRY(cuStreamQuery),
    ENTRY(cuCtxSynchronize),
    ENTRY(cuDeviceGetName),
    {"cuMemAlloc", (void *)cuMemAlloc_v2},
    ENTRY(cuMemAllocAsync),
    ENTRY(cuMemAllocManaged),
    {"cuMemFree", (void *)cuMemFree_v2},
    {"cuMemGetInfo", (void *)cuMemGetInfo_v2},
    {"cuMemsetD8", (void *)cuMemsetD8_v2},
    ENTRY(cuMemcpy),
    ENTRY(cuMemcpyAsync),
    {"cuMemcpyHtoD", (void *)cuMemcpy},
    {"cuMemcpyDtoH", (void *)cuMemcpy},
    ENTRY(cuStreamCreate),
    ENTRY(cuStreamSynchronize),
    ENTRY(cuModuleLoadData),
    ENTRY(cuModuleGetFunction),
    ENTRY(cuLaunchKernel),
    ENTRY(cuEventCreate),
    ENTRY(cuEventRecord),
    ENTRY(cuEventQuery),
    ENTRY(cuEventDestroy),
    {"cuMemHostRegister", (void *)cuMemHostRegister_v2},
    ENTRY(cuMemHostUnregister),
    ENTRY(cuGetProcAddress),
};

Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags, int *status)
{
    (void)version, (void)flags;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(name, functions[i].name) == 0) {
            *function = functions[i].function;
            if (status != NULL)
                *status = 0;
            return SUCCESS;
        }
    *function = NULL;
    if (status != NULL)
        *status = 1;
    return NOT_FOUND;
}

Result cuGetProcAddress_v2(
    const char *name, void **function, int version, uint64_t flags, int *status)
{
    return cuGetProcAddress(name, function, version, flags, status);
}
