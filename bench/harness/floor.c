/*
 * The floor: what one process can read from another with NIXL's C API and nothing above it.
 *
 *     cc -O2 -std=gnu11 floor.c -o floor -ldl -pthread
 *     floor LIBNIXL_CAPI_PATH
 *
 * Two processes, the target that owns memory and the initiator that reads it, each with an agent
 * without a progress thread, spin while a command runs and sleep between commands. Commands come as
 * lines on stdin, and each is answered with a line of JSON on stdout, all times in seconds:
 *
 *     transfer SIZE COUNT ROUNDS    a request of COUNT descriptors of SIZE bytes made, posted and
 *                                   released each round, with a notification. Samples: "read" (the
 *                                   request's making to its completion), "told" (from then until
 *                                   the target has the notification), "cycle" (both).
 *     repost SIZE COUNT ROUNDS      one request, posted again and again without a notification.
 *                                   Sample: "repost" (posted to completed).
 *
 * Both sides use one registered block for all rounds, and every read is verified. "cost" is the
 * processor time of each side, from the command's arrival to the end of its clean-up; "grown" is
 * there for other subjects' sake. Any error ends both processes with a message on stderr.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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
static struct { NIXL_FUNCTIONS(MEMBER) } nixl;

#define CALL(name, ...) check(nixl.name(__VA_ARGS__), #name)

/* As long as a UUID, which is what keys are elsewhere. */
enum { KEY = 36 };

/* Rounds before those that are reported: they make the connection. */
enum { WARM_UP = 3 };

struct command {
    bool notify; /* "transfer", else "repost" */
    size_t size, count, rounds;
};

struct usage {
    double user, system;
};

/* What the two sides tell each other while they spin. Rounds count from 1. */
static struct {
    atomic_size_t marked; /* the round whose bytes the target has written */
    atomic_size_t told;   /* the round whose notification the target has */
    int64_t told_at;      /* when it had it */
    atomic_bool enough;   /* the initiator needs the target's progress no more */
} *shared;

/* Of this process; made after the fork, which UCX does not survive. */
static const char TARGET[] = "floor-target", INITIATOR[] = "floor-initiator";
static const char *role;
static void *agent, *backend, *inbox;

/* Nothing is torn down: with a peer in an unknown state that could hang. */
static _Noreturn void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", role);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    fflush(stderr);
    _exit(1);
}

static void check(int status, const char *call) {
    if (status != SUCCESS) die("NIXL's %s returned %d", call, status);
}

/* For system calls, which return -1 or a null pointer on failure. */
#define SYSTEM(ok, call)                                                                           \
    do {                                                                                           \
        if (!(ok)) die("%s: %s", call, strerror(errno));                                           \
    } while (0)

static int64_t now(void) {
    struct timespec t;
    SYSTEM(clock_gettime(CLOCK_MONOTONIC, &t) == 0, "clock_gettime");
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static struct usage used(void) {
    struct rusage u;
    SYSTEM(getrusage(RUSAGE_SELF, &u) == 0, "getrusage");
    return (struct usage){u.ru_utime.tv_sec + u.ru_utime.tv_usec * 1e-6,
                          u.ru_stime.tv_sec + u.ru_stime.tv_usec * 1e-6};
}

static struct usage since(struct usage before) {
    struct usage after = used();
    return (struct usage){after.user - before.user, after.system - before.system};
}

/* The link between the processes keeps messages apart. */

static void send_message(int link, const void *data, size_t size) {
    SYSTEM(send(link, data, size, MSG_NOSIGNAL) == (ssize_t)size, "send");
}

static size_t receive_message(int link, void *data, size_t room) {
    ssize_t size = recv(link, data, room, MSG_TRUNC);
    SYSTEM(size >= 0, "recv");
    if ((size_t)size > room) die("a message of %zd bytes", size);
    return size;
}

/* Agents */

static void open_agent(const char *library) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL), *params;
    if (!handle) die("%s", dlerror());
#define RESOLVE(name, ...)                                                                         \
    *(void **)&nixl.name = dlsym(handle, "nixl_capi_" #name);                                      \
    if (!nixl.name) die("%s", dlerror());
    NIXL_FUNCTIONS(RESOLVE)
    struct agent_config config = {.workers = 1};
    CALL(create_configured_agent, role, &config, &agent);
    CALL(create_params, &params);
    CALL(create_backend, agent, "UCX", params, &backend);
    CALL(destroy_params, params);
    CALL(create_notif_map, &inbox);
}

static void close_agent(void) {
    CALL(destroy_notif_map, inbox);
    CALL(destroy_agent, agent);
    CALL(destroy_backend, backend);
}

/* Look for notifications, which also lets the agent progress; return whether there are any. */
static bool progress(void) {
    size_t agents;
    CALL(get_notifs, agent, inbox, NULL);
    CALL(notif_map_size, inbox, &agents);
    return agents;
}

/* Blocks: one region each, with its pages present */

static void *describe(const void *block, size_t size) {
    void *list;
    CALL(create_reg_dlist, MEMORY_DRAM, &list);
    CALL(reg_dlist_add_desc, list, (uintptr_t)block, size, 0, NULL, 0);
    return list;
}

static uint8_t *open_block(size_t size) {
    void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SYSTEM(block != MAP_FAILED, "mmap");
    /* As NumPy asks for its arrays, which others are measured with. It is advice: it may fail. */
    (void)madvise(block, size, MADV_HUGEPAGE);
    memset(block, 0, size);
    void *list = describe(block, size);
    CALL(register_mem, agent, list, NULL);
    CALL(destroy_reg_dlist, list);
    return block;
}

static void close_block(uint8_t *block, size_t size) {
    void *list = describe(block, size);
    CALL(deregister_mem, agent, list, NULL);
    CALL(destroy_reg_dlist, list);
    SYSTEM(munmap(block, size) == 0, "munmap");
}

/* Write to both ends what changes every round. */
static void mark(uint8_t *block, size_t size, size_t round) {
    block[0] = block[size - 1] = round % 251 + 1;
}

static void verify(const uint8_t *block, size_t size, size_t round) {
    uint8_t want = round % 251 + 1;
    if (block[0] != want || block[size - 1] != want)
        die("round %zu: read %u .. %u, not %u", round, block[0], block[size - 1], want);
}

/* The target */

/* Wait for the notification of a round; return when it was there. */
static int64_t await_notification(size_t round) {
    while (!progress()) {}
    int64_t at = now();
    const void *data;
    size_t size;
    char key[KEY + 1];
    snprintf(key, sizeof key, "%0*zu", KEY, round);
    CALL(notif_map_get_notif, inbox, INITIATOR, 0, &data, &size);
    if (size != KEY || memcmp(data, key, KEY)) die("round %zu: another notification", round);
    CALL(notif_map_clear, inbox);
    return at;
}

static void offer(uint8_t *block, size_t size, size_t round) {
    mark(block, size, round);
    atomic_store(&shared->marked, round);
}

static void serve(int link, const struct command *command) {
    struct usage before = used();
    size_t size = command->size * command->count, metadata_size;
    uint8_t *block = open_block(size);
    void *metadata;
    CALL(get_local_md, agent, &metadata, &metadata_size);
    send_message(link, &block, sizeof block);
    send_message(link, metadata, metadata_size);
    free(metadata);
    offer(block, size, 1);
    for (size_t round = 1; command->notify && round <= command->rounds; round++) {
        shared->told_at = await_notification(round);
        atomic_store(&shared->told, round);
        offer(block, size, round + 1);
    }
    while (!atomic_load(&shared->enough))
        if (progress()) die("a notification too many");
    close_block(block, size);
    struct usage cost = since(before);
    send_message(link, &cost, sizeof cost);
}

static void run_target(int link, const char *library) {
    struct command command;
    open_agent(library);
    while (receive_message(link, &command, sizeof command)) serve(link, &command);
    close_agent();
}

/* The initiator */

/* Wait for the target to come to a round. What was sent may need progress to leave. */
static void await_target(atomic_size_t *reached, size_t round) {
    while (atomic_load(reached) < round)
        if (progress()) die("a notification for the initiator");
}

static void *list_descriptors(const uint8_t *block, const struct command *command) {
    void *list;
    CALL(create_xfer_dlist, MEMORY_DRAM, &list);
    for (size_t i = 0; i < command->count; i++)
        CALL(xfer_dlist_add_desc, list, (uintptr_t)(block + i * command->size), command->size, 0);
    return list;
}

static void *make_request(const uint8_t *local, const uint8_t *remote,
                          const struct command *command, void *options) {
    void *request, *locals = list_descriptors(local, command);
    void *remotes = list_descriptors(remote, command);
    CALL(create_xfer_req, agent, OPERATION_READ, locals, remotes, TARGET, &request, options);
    CALL(destroy_xfer_dlist, locals);
    CALL(destroy_xfer_dlist, remotes);
    return request;
}

static void complete(void *request) {
    int status = nixl.post_xfer_req(agent, request, NULL);
    while (status == IN_PROGRESS) status = nixl.get_xfer_status(agent, request);
    check(status, "post_xfer_req or get_xfer_status");
}

static void drop_request(void *request) {
    CALL(release_xfer_req, agent, request);
    CALL(destroy_xfer_req, request);
}

static void transfer(uint8_t *local, const uint8_t *remote, const struct command *command,
                     int64_t *reads, int64_t *tolds, int64_t *cycles) {
    char key[KEY + 1];
    void *options;
    CALL(create_opt_args, &options);
    for (size_t round = 1; round <= command->rounds; round++) {
        snprintf(key, sizeof key, "%0*zu", KEY, round);
        await_target(&shared->marked, round);
        int64_t began = now();
        CALL(opt_args_set_notif_msg, options, key, KEY);
        CALL(opt_args_set_has_notif, options, true);
        void *request = make_request(local, remote, command, options);
        complete(request);
        int64_t done = now();
        await_target(&shared->told, round);
        *reads++ = done - began;
        *tolds++ = shared->told_at - done;
        *cycles++ = shared->told_at - began;
        drop_request(request);
        verify(local, command->size * command->count, round);
    }
    CALL(destroy_opt_args, options);
}

static void repost(uint8_t *local, const uint8_t *remote, const struct command *command,
                   int64_t *reposts) {
    size_t size = command->size * command->count;
    await_target(&shared->marked, 1);
    void *request = make_request(local, remote, command, NULL);
    for (size_t round = 1; round <= command->rounds; round++) {
        mark(local, size, 0);
        int64_t began = now();
        complete(request);
        *reposts++ = now() - began;
        verify(local, size, 1);
    }
    drop_request(request);
}

static void print_samples(FILE *out, const char *name, const int64_t *samples, size_t count) {
    fprintf(out, "\"%s\": [", name);
    for (size_t i = 0; i < count; i++) fprintf(out, "%s%.9f", i ? ", " : "", samples[i] * 1e-9);
    fputc(']', out);
}

static void lead(int link, struct command command, FILE *out) {
    struct usage before = used(), target_cost;
    size_t size = command.size * command.count, asked = command.rounds;
    size_t rounds = command.rounds += WARM_UP;
    int64_t *samples = calloc(rounds, 3 * sizeof *samples);
    SYSTEM(samples, "calloc");
    atomic_store(&shared->marked, 0);
    atomic_store(&shared->told, 0);
    atomic_store(&shared->enough, false);
    send_message(link, &command, sizeof command);

    uint8_t *remote, *local = open_block(size);
    char metadata[65536], *name;
    receive_message(link, &remote, sizeof remote);
    size_t metadata_size = receive_message(link, metadata, sizeof metadata);
    CALL(load_remote_md, agent, metadata, metadata_size, &name);
    free(name);
    if (command.notify)
        transfer(local, remote, &command, samples, samples + rounds, samples + 2 * rounds);
    else
        repost(local, remote, &command, samples);
    /* NIXL forgets a region only with its peer, and refuses a peer whose region comes back with
     * another key, as it does where the next block lies at this one's address. */
    CALL(invalidate_remote_md, agent, TARGET);
    atomic_store(&shared->enough, true);
    close_block(local, size);
    receive_message(link, &target_cost, sizeof target_cost);
    struct usage cost = since(before);

    fputs("{\"samples\": {", out);
    const char *names[] = {command.notify ? "read" : "repost", "told", "cycle"};
    for (int i = 0; i < (command.notify ? 3 : 1); i++) {
        if (i) fputs(", ", out);
        print_samples(out, names[i], samples + i * rounds + WARM_UP, asked);
    }
#define COST "{\"user\": %.6f, \"system\": %.6f, \"grown\": 0}"
    fprintf(out, "}, \"cost\": {\"passive\": " COST ", \"active\": " COST "}}\n", target_cost.user,
            target_cost.system, cost.user, cost.system);
    SYSTEM(fflush(out) == 0, "stdout");
    free(samples);
}

static struct command parse(const char *line) {
    struct command command;
    char kind[16], extra;
    size_t bytes;
    if (sscanf(line, "%15s %zu %zu %zu %c", kind, &command.size, &command.count, &command.rounds,
               &extra) != 4)
        die("not a command: %s", line);
    command.notify = strcmp(kind, "transfer") == 0;
    if (!command.notify && strcmp(kind, "repost")) die("no command: %s", kind);
    if (!command.size || !command.count || !command.rounds || command.rounds > UINT32_MAX ||
        __builtin_mul_overflow(command.size, command.count, &bytes))
        die("out of range: %s", line);
    return command;
}

static void run_initiator(int link, const char *library, FILE *out) {
    char *line = NULL;
    size_t room = 0;
    open_agent(library);
    while (getline(&line, &room, stdin) >= 0) lead(link, parse(line), out);
    SYSTEM(!ferror(stdin), "stdin");
    free(line);
    close_agent();
}

static void target_ended(int number) {
    (void)number;
    static const char text[] = "floor-initiator: the target ended\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

int main(int argc, char **argv) {
    role = INITIATOR;
    if (argc != 2) die("usage: floor LIBNIXL_CAPI_PATH");
    SYSTEM(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
    /* A group of its own, so that both processes can be stopped at once. */
    SYSTEM(getpgrp() == getpid() || setpgid(0, 0) == 0, "setpgid");
    /* UCX logs to stdout, which is for answers alone. */
    int answers = dup(STDOUT_FILENO), links[2], status;
    SYSTEM(answers >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0, "dup");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    SYSTEM(shared != MAP_FAILED, "mmap");
    SYSTEM(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, links) == 0, "socketpair");
    struct sigaction on_end = {.sa_handler = target_ended, .sa_flags = SA_NOCLDSTOP};
    SYSTEM(sigaction(SIGCHLD, &on_end, NULL) == 0, "sigaction");

    pid_t initiator = getpid(), target = fork();
    SYSTEM(target >= 0, "fork");
    if (target == 0) {
        role = TARGET;
        SYSTEM(signal(SIGCHLD, SIG_DFL) != SIG_ERR, "signal");
        SYSTEM(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
        if (getppid() != initiator) die("the initiator ended");
        close(answers);
        close(links[0]);
        run_target(links[1], argv[1]);
        return 0;
    }
    close(links[1]);
    FILE *out = fdopen(answers, "w");
    SYSTEM(out, "fdopen");
    run_initiator(links[0], argv[1], out);
    SYSTEM(signal(SIGCHLD, SIG_DFL) != SIG_ERR, "signal");
    close(links[0]);
    SYSTEM(waitpid(target, &status, 0) == target, "waitpid");
    if (status) die("the target ended with status %d", status);
    return 0;
}
