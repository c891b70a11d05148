/* What `capi.h` declares, but for `pair.c`'s. */
#include "capi.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct nixl nixl;
const char *role;

/* Nothing is torn down: with a peer in an unknown state that could hang. */
_Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", role);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(stderr);
    _exit(1);
}

void check(int status, const char *call) {
    if (status != SUCCESS) die("NIXL's %s returned %d", call, status);
}

int64_t now(void) {
    struct timespec t;
    SYSTEM(clock_gettime(CLOCK_MONOTONIC, &t) == 0, "clock_gettime");
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void open_library(const char *path) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) die("%s", dlerror());
#define RESOLVE(name, ...)                                                                         \
    *(void **)&nixl.name = dlsym(handle, "nixl_capi_" #name);                                      \
    if (!nixl.name) die("%s", dlerror());
    NIXL_FUNCTIONS(RESOLVE)
}

struct agent open_agent(const char *name) {
    struct agent agent;
    void *params;
    struct agent_config config = {.workers = 1};
    CALL(create_configured_agent, name, &config, &agent.handle);
    CALL(create_params, &params);
    CALL(create_backend, agent.handle, "UCX", params, &agent.backend);
    CALL(destroy_params, params);
    CALL(create_notif_map, &agent.inbox);
    return agent;
}

void close_agent(struct agent *agent) {
    CALL(destroy_notif_map, agent->inbox);
    CALL(destroy_agent, agent->handle);
    CALL(destroy_backend, agent->backend);
}

/* Look for notifications, which also lets the agent progress; return whether there are any. */
bool progress(struct agent *agent) {
    size_t agents;
    CALL(get_notifs, agent->handle, agent->inbox, NULL);
    CALL(notif_map_size, agent->inbox, &agents);
    return agents;
}

/* Take the one notification that is there: it must be a key. */
void take_notification(struct agent *agent, const char *from, const char *key) {
    const void *data;
    size_t size;
    CALL(notif_map_get_notif, agent->inbox, from, 0, &data, &size);
    if (size != KEY || memcmp(data, key, KEY)) die("not the notification %s", key);
    CALL(notif_map_clear, agent->inbox);
}

/* A list of one region. */
void *region_list(const void *block, size_t size) {
    void *list;
    CALL(create_reg_dlist, MEMORY_DRAM, &list);
    CALL(reg_dlist_add_desc, list, (uintptr_t)block, size, 0, NULL, 0);
    return list;
}

/* Memory with its pages present. */
uint8_t *map_block(size_t size) {
    void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SYSTEM(block != MAP_FAILED, "mmap");
    /* As NumPy asks for its arrays, which others are measured with. It is advice: it may fail. */
    (void)madvise(block, size, MADV_HUGEPAGE);
    memset(block, 0, size);
    return block;
}

/* Write to both ends what changes every round. */
void mark(uint8_t *block, size_t size, size_t round) {
    block[0] = block[size - 1] = round % 251 + 1;
}

void verify(const uint8_t *block, size_t size, size_t round) {
    uint8_t want = round % 251 + 1;
    if (block[0] != want || block[size - 1] != want)
        die("round %zu: read %u .. %u, not %u", round, block[0], block[size - 1], want);
}

void print_samples(FILE *out, const char *name, const int64_t *samples, size_t count) {
    fprintf(out, "\"%s\": [", name);
    for (size_t i = 0; i < count; i++) fprintf(out, "%s%.9f", i ? ", " : "", samples[i] * 1e-9);
    fputc(']', out);
}
