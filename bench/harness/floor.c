/*
 * The floor: what one process can read from another with NIXL's C API and nothing above it.
 *
 *     cc -O2 -std=gnu11 floor.c pair.c capi.c -o floor -ldl -pthread
 *     floor LIBNIXL_CAPI_PATH
 *
 * Two processes, the target that owns memory and the initiator that reads it, each with an agent
 * without a progress thread, spin while a command runs, but for one, and sleep between commands.
 * Commands come as lines on stdin, and each is answered with a line of JSON on stdout, all times in seconds:
 *
 *     transfer SIZE COUNT ROUNDS    a request of COUNT descriptors of SIZE bytes made, posted and
 *                                   released each round, with a notification. Samples: "read" (the
 *                                   request's making to its completion), "told" (from then until
 *                                   the target has the notification), "cycle" (both).
 *     sleep SIZE COUNT ROUNDS       the same, but each side sleeps until the other has something
 *                                   for it: the target tells the initiator by a message that there is
 *                                   something to read, and the initiator rings before it reads.
 *                                   "read" is from the moment that the initiator has the message,
 *                                   "cycle" from before it is sent.
 *     repost SIZE COUNT ROUNDS      one request, posted again and again without a notification.
 *                                   Sample: "repost" (posted to completed).
 *     pair SIZE 1 ROUNDS            whole operations between two agents of the initiator's process,
 *     pair-new SIZE 1 ROUNDS        with memory used before or new each round: see pair.c. Samples:
 *                                   its stages, and "pair" (all of them).
 *
 * For the first three, both sides use one registered block for all rounds. Every read is verified,
 * and rounds that are not reported, to make the connection, come first. "cost" is the processor
 * time of each side, from the command's arrival to the end of its clean-up; "grown" is there for
 * other subjects' sake. Any error ends both processes with a message on stderr.
 */
#include "capi.h"
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Rounds before those that are reported: they make the connection. */
enum { WARM_UP = 3 };

enum kind { TRANSFER, SLEEP, REPOST, PAIR, PAIR_NEW, KINDS };
static const char *const KIND_NAMES[KINDS] = {"transfer", "sleep", "repost", "pair", "pair-new"};

/* About as long as a message of the libraries that are measured. */
enum { OFFER = 1024 };

struct command {
    enum kind kind;
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
    _Atomic int64_t done_at; /* when a sleeping initiator had read */
    atomic_bool enough;   /* the initiator needs the target's progress no more */
} *shared;

/* Of this process; made after the fork, which UCX does not survive. */
static const char TARGET[] = "floor-target", INITIATOR[] = "floor-initiator";
static struct agent agent;

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

/* Blocks: one region each, with its pages present */

static uint8_t *open_block(size_t size) {
    uint8_t *block = map_block(size);
    void *list = region_list(block, size);
    CALL(register_mem, agent.handle, list, NULL);
    CALL(destroy_reg_dlist, list);
    return block;
}

static void close_block(uint8_t *block, size_t size) {
    void *list = region_list(block, size);
    CALL(deregister_mem, agent.handle, list, NULL);
    CALL(destroy_reg_dlist, list);
    SYSTEM(munmap(block, size) == 0, "munmap");
}

/* The target */

/* Wait for the notification of a round; return when it was there. */
static int64_t await_notification(size_t round) {
    while (!progress(&agent)) {}
    int64_t at = now();
    char key[KEY + 1];
    snprintf(key, sizeof key, "%0*zu", KEY, round);
    take_notification(&agent, INITIATOR, key);
    return at;
}

static void offer(uint8_t *block, size_t size, size_t round) {
    mark(block, size, round);
    atomic_store(&shared->marked, round);
}

/* Offer, and sleep until the initiator rings; round after round. Then tell what that took. */
static void serve_sleeping(int link, uint8_t *block, size_t size, size_t rounds) {
    static const char text[OFFER];
    int64_t *samples = calloc(rounds, 3 * sizeof *samples), woken;
    SYSTEM(samples, "calloc");
    for (size_t round = 1; round <= rounds; round++) {
        mark(block, size, round);
        int64_t began = now();
        send_message(link, text, sizeof text);
        if (receive_message(link, &woken, sizeof woken) != sizeof woken) die("no bell");
        int64_t told = await_notification(round), done;
        /* The notification may have left before the initiator notes the time. */
        while ((done = atomic_load(&shared->done_at)) < woken) {}
        atomic_store(&shared->told, round);
        samples[round - 1] = done - woken;
        samples[rounds + round - 1] = told - done;
        samples[2 * rounds + round - 1] = told - began;
    }
    send_message(link, samples, 3 * rounds * sizeof *samples);
    free(samples);
}

static void serve(int link, const struct command *command) {
    struct usage before = used();
    size_t size = command->size * command->count, metadata_size;
    uint8_t *block = open_block(size);
    void *metadata;
    CALL(get_local_md, agent.handle, &metadata, &metadata_size);
    send_message(link, &block, sizeof block);
    send_message(link, metadata, metadata_size);
    free(metadata);
    if (command->kind == SLEEP)
        serve_sleeping(link, block, size, command->rounds);
    else
        offer(block, size, 1);
    for (size_t round = 1; command->kind == TRANSFER && round <= command->rounds; round++) {
        shared->told_at = await_notification(round);
        atomic_store(&shared->told, round);
        offer(block, size, round + 1);
    }
    while (!atomic_load(&shared->enough))
        if (progress(&agent)) die("a notification too many");
    close_block(block, size);
    struct usage cost = since(before);
    send_message(link, &cost, sizeof cost);
}

static void run_target(int link, const char *library) {
    struct command command;
    open_library(library);
    agent = open_agent(role);
    while (receive_message(link, &command, sizeof command)) serve(link, &command);
    close_agent(&agent);
}

/* The initiator */

/* Wait for the target to come to a round. What was sent may need progress to leave. */
static void await_target(atomic_size_t *reached, size_t round) {
    while (atomic_load(reached) < round)
        if (progress(&agent)) die("a notification for the initiator");
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
    CALL(create_xfer_req, agent.handle, OPERATION_READ, locals, remotes, TARGET, &request,
         options);
    CALL(destroy_xfer_dlist, locals);
    CALL(destroy_xfer_dlist, remotes);
    return request;
}

static void complete(void *request) {
    int status = nixl.post_xfer_req(agent.handle, request, NULL);
    while (status == IN_PROGRESS) status = nixl.get_xfer_status(agent.handle, request);
    check(status, "post_xfer_req or get_xfer_status");
}

static void drop_request(void *request) {
    CALL(release_xfer_req, agent.handle, request);
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

static void sleep_between(int link, uint8_t *local, const uint8_t *remote,
                          const struct command *command, int64_t *samples) {
    char key[KEY + 1], text[OFFER];
    void *options;
    CALL(create_opt_args, &options);
    for (size_t round = 1; round <= command->rounds; round++) {
        receive_message(link, text, sizeof text);
        int64_t woken = now();
        /* First: UCX may need the target's progress to read. */
        send_message(link, &woken, sizeof woken);
        snprintf(key, sizeof key, "%0*zu", KEY, round);
        CALL(opt_args_set_notif_msg, options, key, KEY);
        CALL(opt_args_set_has_notif, options, true);
        void *request = make_request(local, remote, command, options);
        complete(request);
        atomic_store(&shared->done_at, now());
        await_target(&shared->told, round); /* which may need its progress */
        drop_request(request);
        verify(local, command->size * command->count, round);
    }
    CALL(destroy_opt_args, options);
    receive_message(link, samples, 3 * command->rounds * sizeof *samples);
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

/* End an answer. */
static void print_cost(FILE *out, struct usage passive, struct usage active) {
#define COST "{\"user\": %.6f, \"system\": %.6f, \"grown\": 0}"
    fprintf(out, "}, \"cost\": {\"passive\": " COST ", \"active\": " COST "}}\n", passive.user,
            passive.system, active.user, active.system);
    SYSTEM(fflush(out) == 0, "stdout");
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
    atomic_store(&shared->done_at, 0);
    send_message(link, &command, sizeof command);

    uint8_t *remote, *local = open_block(size);
    char metadata[65536], *name;
    receive_message(link, &remote, sizeof remote);
    size_t metadata_size = receive_message(link, metadata, sizeof metadata);
    CALL(load_remote_md, agent.handle, metadata, metadata_size, &name);
    free(name);
    if (command.kind == TRANSFER)
        transfer(local, remote, &command, samples, samples + rounds, samples + 2 * rounds);
    else if (command.kind == SLEEP)
        sleep_between(link, local, remote, &command, samples);
    else
        repost(local, remote, &command, samples);
    /* NIXL forgets a region only with its peer, and refuses a peer whose region comes back with
     * another key, as it does where the next block lies at this one's address. */
    CALL(invalidate_remote_md, agent.handle, TARGET);
    atomic_store(&shared->enough, true);
    close_block(local, size);
    receive_message(link, &target_cost, sizeof target_cost);
    struct usage cost = since(before);

    fputs("{\"samples\": {", out);
    const char *names[] = {command.kind == REPOST ? "repost" : "read", "told", "cycle"};
    for (int i = 0; i < (command.kind == REPOST ? 1 : 3); i++) {
        if (i) fputs(", ", out);
        print_samples(out, names[i], samples + i * rounds + WARM_UP, asked);
    }
    print_cost(out, target_cost, cost);
    free(samples);
}

/* In this process alone. */
static void lead_pair(struct command command, FILE *out) {
    struct usage before = used();
    fputs("{\"samples\": {", out);
    measure_pairs(command.size, command.rounds, command.kind == PAIR_NEW, out);
    print_cost(out, since(before), (struct usage){0});
}

static struct command parse(const char *line) {
    struct command command;
    char name[16], extra;
    size_t bytes;
    if (sscanf(line, "%15s %zu %zu %zu %c", name, &command.size, &command.count, &command.rounds,
               &extra) != 4)
        die("not a command: %s", line);
    command.kind = 0;
    while (command.kind < KINDS && strcmp(name, KIND_NAMES[command.kind])) command.kind++;
    if (command.kind == KINDS) die("no command: %s", name);
    if (!command.size || !command.count || !command.rounds || command.rounds > UINT32_MAX ||
        __builtin_mul_overflow(command.size, command.count, &bytes))
        die("out of range: %s", line);
    return command;
}

static void run_initiator(int link, const char *library, FILE *out) {
    char *line = NULL;
    size_t room = 0;
    open_library(library);
    agent = open_agent(role);
    while (getline(&line, &room, stdin) >= 0) {
        struct command command = parse(line);
        if (command.kind == PAIR || command.kind == PAIR_NEW)
            lead_pair(command, out);
        else
            lead(link, command, out);
    }
    SYSTEM(!ferror(stdin), "stdin");
    free(line);
    close_agent(&agent);
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
