/* NIXL's C API, and what else `floor.c` and `pair.c` share. */
#ifndef CAPI_H
#define CAPI_H
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NIXL's C API, restated from src/bindings/rust/wrapper.h of ai-dynamo/nixl. */

enum { SUCCESS = 0, IN_PROGRESS = 1 };
enum { MEMORY_DRAM = 0 };
enum { OPERATION_READ = 0 };

struct agent_config {
    bool enable_progress_thread;
    bool enable_listen_thread;
    int listen_port;
    int thread_sync; /* 0 is none: each agent is used by one thread */
    unsigned workers;
    uint64_t progress_delay_us;
    uint64_t listen_delay_us;
    bool capture_telemetry;
};

#define NIXL_FUNCTIONS(X)                                                                          \
    X(create_configured_agent, const char *, const struct agent_config *, void **)                 \
    X(destroy_agent, void *)                                                                       \
    X(create_params, void **)                                                                      \
    X(destroy_params, void *)                                                                      \
    X(create_backend, void *, const char *, void *, void **)                                       \
    X(destroy_backend, void *)                                                                     \
    X(get_local_md, void *, void **, size_t *)                                                     \
    X(get_local_partial_md, void *, void *, void **, size_t *, void *)                             \
    X(load_remote_md, void *, const void *, size_t, char **)                                       \
    X(invalidate_remote_md, void *, const char *)                                                  \
    X(create_reg_dlist, int, void **)                                                              \
    X(reg_dlist_add_desc, void *, uintptr_t, size_t, uint64_t, const void *, size_t)               \
    X(destroy_reg_dlist, void *)                                                                   \
    X(register_mem, void *, void *, void *)                                                        \
    X(deregister_mem, void *, void *, void *)                                                      \
    X(create_opt_args, void **)                                                                    \
    X(destroy_opt_args, void *)                                                                    \
    X(opt_args_set_notif_msg, void *, const void *, size_t)                                        \
    X(opt_args_set_has_notif, void *, bool)                                                        \
    X(create_xfer_dlist, int, void **)                                                             \
    X(xfer_dlist_add_desc, void *, uintptr_t, size_t, uint64_t)                                    \
    X(destroy_xfer_dlist, void *)                                                                  \
    X(create_xfer_req, void *, int, void *, void *, const char *, void **, void *)                 \
    X(post_xfer_req, void *, void *, void *)                                                       \
    X(get_xfer_status, void *, void *)                                                             \
    X(release_xfer_req, void *, void *)                                                            \
    X(destroy_xfer_req, void *)                                                                    \
    X(create_notif_map, void **)                                                                   \
    X(destroy_notif_map, void *)                                                                   \
    X(get_notifs, void *, void *, void *)                                                          \
    X(notif_map_size, void *, size_t *)                                                            \
    X(notif_map_get_notif, void *, const char *, size_t, const void **, size_t *)                  \
    X(notif_map_clear, void *)

#define MEMBER(name, ...) int (*name)(__VA_ARGS__);
extern struct nixl { NIXL_FUNCTIONS(MEMBER) } nixl;

#define CALL(name, ...) check(nixl.name(__VA_ARGS__), #name)

/* As long as a UUID, which is what keys are elsewhere. */
enum { KEY = 36 };

/* For system calls, which return -1 or a null pointer on failure. */
#define SYSTEM(ok, call)                                                                           \
    do {                                                                                           \
        if (!(ok)) die("%s: %s", call, strerror(errno));                                           \
    } while (0)

/* An agent without a progress thread, and where its notifications go. */
struct agent {
    void *handle, *backend, *inbox;
};

extern const char *role; /* what this process is called in messages */
_Noreturn void die(const char *format, ...);
void check(int status, const char *call);
int64_t now(void); /* CLOCK_MONOTONIC in nanoseconds */
void open_library(const char *path);
struct agent open_agent(const char *name);
void close_agent(struct agent *agent);
bool progress(struct agent *agent);
void take_notification(struct agent *agent, const char *from, const char *key);
void *region_list(const void *block, size_t size);
uint8_t *map_block(size_t size);
void mark(uint8_t *block, size_t size, size_t round);
void verify(const uint8_t *block, size_t size, size_t round);
void print_samples(FILE *out, const char *name, const int64_t *samples, size_t count);

/* pair.c */
void measure_pairs(size_t size, size_t rounds, bool new_memory, FILE *out);

#endif
