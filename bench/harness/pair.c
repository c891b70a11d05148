/*
 * Whole operations between two agents of this process: all that an offer and its read need of NIXL,
 * stage by stage. The calling thread lets both agents progress.
 */
#include "capi.h"
#include <sys/mman.h>

/* Rounds before those that are reported: they make the connection, and fill caches. */
enum { WARM_UP = 20 };

/* Bytes from one piece of new memory to the next, if it is smaller: a line of the cache. */
enum { APART = 64 };

enum { METADATA = 4096 };

static const char OWNER[] = "floor-owner", MOVER[] = "floor-mover";
static const char SECTIONS[] = "MemSection|";

enum { REGISTER, DESCRIBE, LOAD, DESTINATION, REQUEST, POST, TOLD, RELEASE, STAGES };
static const char *const NAMES[STAGES] = {"register", "describe", "load", "destination",
                                          "request",  "post",     "told", "release"};

struct text {
    size_t size;
    char bytes[METADATA];
};

static struct agent owner, mover;
static void *options;
static struct text connection; /* the owner's metadata up to its sections */
static struct text loaded;     /* what the mover has loaded last */

/* Append what the owner's agent says of a list of regions: of its head or from its sections on. */
static void append(struct text *text, void *list, bool head) {
    void *data, *sections;
    size_t size;
    CALL(get_local_partial_md, owner.handle, list, &data, &size, NULL);
    sections = memmem(data, size, SECTIONS, sizeof SECTIONS - 1);
    if (!sections) die("metadata without sections");
    /* A field is its length in eight bytes and its content; this one has no tag. */
    size_t at = (char *)sections - (char *)data - sizeof(uint64_t);
    size_t take = head ? at : size - at;
    if (take > METADATA - text->size) die("metadata of %zu bytes", size);
    memcpy(text->bytes + text->size, (char *)data + (head ? 0 : at), take);
    text->size += take;
    free(data);
}

static void open_pair(void) {
    void *none;
    connection.size = loaded.size = 0;
    owner = open_agent(OWNER);
    mover = open_agent(MOVER);
    CALL(create_opt_args, &options);
    /* Without regions there is connection info, and with them there is none. */
    CALL(create_reg_dlist, MEMORY_DRAM, &none);
    append(&connection, none, true);
    CALL(destroy_reg_dlist, none);
}

static void close_pair(void) {
    CALL(destroy_opt_args, options);
    CALL(invalidate_remote_md, mover.handle, OWNER);
    close_agent(&mover);
    close_agent(&owner);
}

static void *transfer_list(const uint8_t *block, size_t size) {
    void *list;
    CALL(create_xfer_dlist, MEMORY_DRAM, &list);
    CALL(xfer_dlist_add_desc, list, (uintptr_t)block, size, 0);
    return list;
}

static void load(const struct text *text) {
    char *name;
    /* The owner hands the same text out for the same memory. */
    if (text->size == loaded.size && !memcmp(text->bytes, loaded.bytes, text->size)) return;
    CALL(load_remote_md, mover.handle, text->bytes, text->size, &name);
    free(name);
    memcpy(loaded.bytes, text->bytes, text->size);
    loaded.size = text->size;
}

static void *request(const uint8_t *source, const uint8_t *target, size_t size, const char *key) {
    void *made, *locals = transfer_list(target, size), *remotes = transfer_list(source, size);
    CALL(opt_args_set_notif_msg, options, key, KEY);
    CALL(opt_args_set_has_notif, options, true);
    CALL(create_xfer_req, mover.handle, OPERATION_READ, locals, remotes, OWNER, &made, options);
    CALL(destroy_xfer_dlist, locals);
    CALL(destroy_xfer_dlist, remotes);
    return made;
}

static void complete(void *request) {
    int status = nixl.post_xfer_req(mover.handle, request, NULL);
    while (status == IN_PROGRESS) {
        progress(&owner);
        status = nixl.get_xfer_status(mover.handle, request);
    }
    check(status, "post_xfer_req or get_xfer_status");
}

/* Offer and read; note when each stage ends. */
static void pair(const uint8_t *source, const uint8_t *target, size_t size, size_t round,
                 int64_t ends[STAGES]) {
    char key[KEY + 1];
    struct text text;
    snprintf(key, sizeof key, "%0*zu", KEY, round);

    void *offered = region_list(source, size);
    CALL(register_mem, owner.handle, offered, NULL);
    ends[REGISTER] = now();
    memcpy(text.bytes, connection.bytes, connection.size);
    text.size = connection.size;
    append(&text, offered, false);
    ends[DESCRIBE] = now();
    load(&text);
    ends[LOAD] = now();
    void *wanted = region_list(target, size);
    CALL(register_mem, mover.handle, wanted, NULL);
    ends[DESTINATION] = now();
    void *made = request(source, target, size, key);
    ends[REQUEST] = now();
    complete(made);
    ends[POST] = now();
    while (!progress(&owner))
        if (progress(&mover)) die("a notification for the mover");
    take_notification(&owner, MOVER, key);
    ends[TOLD] = now();
    CALL(release_xfer_req, mover.handle, made);
    CALL(destroy_xfer_req, made);
    CALL(deregister_mem, mover.handle, wanted, NULL);
    CALL(destroy_reg_dlist, wanted);
    CALL(deregister_mem, owner.handle, offered, NULL);
    CALL(destroy_reg_dlist, offered);
    ends[RELEASE] = now();
}

/* Measure on two new agents, and print the samples of all stages and of their sum. */
void measure_pairs(size_t size, size_t rounds, bool new_memory, FILE *out) {
    size_t all = rounds + WARM_UP, step = new_memory ? (size > APART ? size : APART) : 0, bytes;
    if (__builtin_mul_overflow(step, all, &bytes)) die("%zu times %zu bytes", all, size);
    /* For each time anew: what the mover loads is the dearer, the more it has loaded before. */
    open_pair();
    bytes += size;
    uint8_t *sources = map_block(bytes), *targets = map_block(bytes);
    uint8_t *source = sources, *target = targets;
    int64_t *samples = calloc(rounds, (STAGES + 1) * sizeof *samples);
    SYSTEM(samples, "calloc");
    for (size_t round = 0; round < all; round++, source += step, target += step) {
        int64_t ends[STAGES], began;
        mark(source, size, round);
        began = now();
        pair(source, target, size, round, ends);
        verify(target, size, round);
        if (round < WARM_UP) continue;
        for (int i = 0; i < STAGES; i++)
            samples[i * rounds + round - WARM_UP] = ends[i] - (i ? ends[i - 1] : began);
        samples[STAGES * rounds + round - WARM_UP] = ends[RELEASE] - began;
    }
    close_pair();
    SYSTEM(munmap(sources, bytes) == 0 && munmap(targets, bytes) == 0, "munmap");
    for (int i = 0; i < STAGES; i++) {
        print_samples(out, NAMES[i], samples + i * rounds, rounds);
        fputs(", ", out);
    }
    print_samples(out, "pair", samples + STAGES * rounds, rounds);
    free(samples);
}
