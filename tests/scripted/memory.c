/* Lets allocations of the package's own native modules fail on demand, and no others.

   Preloaded. failing_arm(n): the n-th allocation from now on fails, counted from 1, once; 0 for none.
   failing_seen(): how many there have been since. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static long armed, seen;

void failing_arm(long n) {
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&armed, n, __ATOMIC_SEQ_CST);
}

long failing_seen(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

static int fails(void *caller) {
    Dl_info info;
    if (__atomic_load_n(&armed, __ATOMIC_SEQ_CST) == 0) return 0;
    if (!dladdr(caller, &info) || !strstr(info.dli_fname, "nixl_connect/_native/")) return 0;
    return __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) ==
           __atomic_load_n(&armed, __ATOMIC_SEQ_CST);
}

void *malloc(size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

char *strdup(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}
