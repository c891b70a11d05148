/* What the files of the double share. */

#ifndef CUDA_DOUBLE_H
#define CUDA_DOUBLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int Result;
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
};
enum { DEVICES = 2, MOST = 256, DEPTH = 8 };
enum { MEMORY_TYPE = 2, IS_MANAGED = 8, DEVICE_ORDINAL = 9, RANGE_START = 11, RANGE_SIZE = 12 };

struct context {
    int device;
};

struct copy {
    void *to;
    const void *from;
    size_t size;
};

struct stream {
    struct context *context;
    bool capturing; /* in a graph */
    uint64_t given; /* work that it was given, and has done */
    uint64_t done;
    struct copy copies[MOST]; /* to be made when the work of the same number is done */
};

struct event {
    struct context *context;
    struct stream *stream; /* NULL before it is recorded */
    uint64_t number;
};

struct range {
    uint64_t start, size;
    int kind, device;
    unsigned managed;
};

extern pthread_mutex_t double_lock;

struct context *double_current(void);

/* The stream that a handle names: that of the current context for a default one. */
struct stream *double_named(void *handle);

/* Have the driver know memory, and forget it. With the lock held. */
Result double_know(uint64_t start, uint64_t size, int kind, int device, unsigned managed);
struct range *double_range(uint64_t pointer);
void double_forget(struct range *range);

/* Do what a stream has been given up to a number. With the lock held. */
void double_do(struct stream *stream, uint64_t number);

/* What calls are to fail with, or SUCCESS. */
Result double_failure(void);

/* Of memory.c: the driver's, for its table of functions. */
Result cuCtxSynchronize(void);
Result cuDeviceGetName(char *name, int size, int device);
Result cuMemAlloc_v2(uint64_t *pointer, size_t size);
Result cuMemAllocAsync(uint64_t *pointer, size_t size, void *stream);
Result cuMemAllocManaged(uint64_t *pointer, size_t size, unsigned flags);
Result cuMemFree_v2(uint64_t pointer);
Result cuMemGetInfo_v2(size_t *left, size_t *total);
Result cuMemsetD8_v2(uint64_t pointer, unsigned char value, size_t size);
Result cuMemcpy(uint64_t to, uint64_t from, size_t size);
Result cuMemcpyAsync(uint64_t to, uint64_t from, size_t size, void *stream);
Result cuStreamCreate(struct stream **stream, unsigned flags);
Result cuStreamSynchronize(void *stream);
Result cuModuleLoadData(void **module, const void *code);
Result cuModuleGetFunction(void **function, void *module, const char *name);
Result cuStreamQuery(void *stream);
Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
    unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments, void **extra);

#endif
