/* NIXL's C API with faults on a script: a library between nixl_connect and the real one.

   Every call goes to the real library, named by SCRIPTED_NIXL, unless a rule says otherwise. Rules
   are set by the process itself (see script.py) and apply to calls by name, from the n-th on and so
   many times. What moves is moved by the real NIXL: this only fails it, delays it, or holds it back.
*/

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, IN_PROGRESS = 1 };

/* --- the real library ---------------------------------------------------------------------- */

static void *real(const char *name)
{
    static void *library;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char symbol[128];
    void *found;

    pthread_mutex_lock(&lock);
    if (library == NULL)
        library = dlopen(getenv("SCRIPTED_NIXL"), RTLD_NOW | RTLD_LOCAL);
    pthread_mutex_unlock(&lock);
    snprintf(symbol, sizeof symbol, "nixl_capi_%s", name);
    found = library ? dlsym(library, symbol) : NULL;
    if (found == NULL) {
        fprintf(stderr, "scripted NIXL: no %s: %s\n", symbol, dlerror());
        abort();
    }
    return found;
}

/* --- rules --------------------------------------------------------------------------------- */

enum action {
    NONE,
    FAIL,    /* do nothing, and return `value` */
    DELAY,   /* wait `value` milliseconds first */
    DROP,    /* do nothing, and return success */
    TWICE,   /* do it twice */
    LATE,    /* return success now, and do it after `value` milliseconds */
    FOREIGN, /* notify of `value` messages of other keys first */
    HOLD,    /* post nothing until `scripted_release`: in progress */
    REKEY,   /* have the last region's key change with each registration, to one of two */
};

static const char *const actions[] = {
    "none", "fail", "delay", "drop", "twice", "late", "foreign", "hold", "rekey",
};

struct rule {
    char call[40];
    long skip;
    long count; /* below 0: for ever */
    enum action action;
    int value;
};

enum { MOST_RULES = 64, MOST_CALLS = 64, MOST_HELD = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[MOST_RULES];
static int rule_count;
static struct { const char *call; long count; } calls[MOST_CALLS];
static void *held[MOST_HELD]; /* requests that have been posted in name only */
static int held_count;
static bool released;

int scripted_rule(const char *call, long skip, long count, const char *action, int value)
{
    struct rule rule = {.skip = skip, .count = count, .value = value};
    int rc = -1;

    snprintf(rule.call, sizeof rule.call, "%s", call);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (strcmp(actions[i], action) == 0) {
            rule.action = i;
            rc = 0;
        }
    pthread_mutex_lock(&lock);
    if (rc == 0 && rule_count < MOST_RULES)
        rules[rule_count++] = rule;
    else
        rc = -1;
    released = released && rule.action != HOLD;
    pthread_mutex_unlock(&lock);
    return rc;
}

void scripted_clear(void)
{
    pthread_mutex_lock(&lock);
    rule_count = 0;
    pthread_mutex_unlock(&lock);
}

/* What is held is posted as soon as somebody looks at it. */
void scripted_release(void)
{
    pthread_mutex_lock(&lock);
    released = true;
    pthread_mutex_unlock(&lock);
}

long scripted_calls(const char *call)
{
    long count = 0;

    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_CALLS && calls[i].call; i++)
        if (strcmp(calls[i].call, call) == 0)
            count = calls[i].count;
    pthread_mutex_unlock(&lock);
    return count;
}

/* Count a call, and return what to do with it. */
static enum action on(const char *call, int *value)
{
    enum action action = NONE;
    int i = 0;

    pthread_mutex_lock(&lock);
    while (i < MOST_CALLS && calls[i].call && strcmp(calls[i].call, call))
        i++;
    if (i < MOST_CALLS) {
        calls[i].call = call;
        calls[i].count++;
    }
    for (i = 0; i < rule_count && action == NONE; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->call, call) || rule->count == 0)
            continue;
        if (rule->skip > 0) {
            rule->skip--;
            continue;
        }
        if (rule->count > 0)
            rule->count--;
        action = rule->action;
        *value = rule->value;
    }
    pthread_mutex_unlock(&lock);
    if (action == DELAY) {
        usleep(*value * 1000);
        action = NONE;
    }
    return action;
}

/* --- calls that rules may name --------------------------------------------------------------- */

#define SCRIPTED(name, parameters, arguments)                                                      \
    int nixl_capi_##name parameters                                                                \
    {                                                                                              \
        static int(*call) parameters;                                                              \
        int value = 0;                                                                             \
        switch (on(#name, &value)) {                                                               \
        case FAIL: return value;                                                                   \
        case DROP: return SUCCESS;                                                                 \
        default: break;                                                                            \
        }                                                                                          \
        if (call == NULL)                                                                          \
            call = real(#name);                                                                    \
        return call arguments;                                                                     \
    }

#define PLAIN(name, parameters, arguments)                                                         \
    int nixl_capi_##name parameters                                                                \
    {                                                                                              \
        static int(*call) parameters;                                                              \
        if (call == NULL)                                                                          \
            call = real(#name);                                                                    \
        return call arguments;                                                                     \
    }

SCRIPTED(create_configured_agent, (const char *a, const void *b, void **c), (a, b, c))
SCRIPTED(get_local_md, (void *a, void **b, size_t *c), (a, b, c))

int nixl_capi_get_local_partial_md(void *a, void *b, void **c, size_t *d, void *e)
{
    int value = 0;
    enum action action = on("get_local_partial_md", &value);
    int rc;

    if (action == FAIL)
        return value;
    rc = ((int (*)(void *, void *, void **, size_t *, void *))real("get_local_partial_md"))(
        a, b, c, d, e);
    /* The key is the end of the last field, before its mark. UCX accepts it, and reads by it. */
    if (rc == SUCCESS && action == REKEY)
        ((char *)*c)[*d - 2] ^= scripted_calls("register_mem") & 1;
    return rc;
}

SCRIPTED(load_remote_md, (void *a, const void *b, size_t c, char **d), (a, b, c, d))
SCRIPTED(invalidate_remote_md, (void *a, const char *b), (a, b))
SCRIPTED(get_available_plugins, (void *a, void **b), (a, b))
PLAIN(string_list_size, (void *a, size_t *b), (a, b))
PLAIN(string_list_get, (void *a, size_t b, const char **c), (a, b, c))
PLAIN(destroy_string_list, (void *a), (a))
SCRIPTED(get_plugin_params, (void *a, const char *b, void **c, void **d), (a, b, c, d))
PLAIN(destroy_mem_list, (void *a), (a))
SCRIPTED(create_params, (void **a), (a))
SCRIPTED(params_add, (void *a, const char *b, const char *c), (a, b, c))
PLAIN(destroy_params, (void *a), (a))
SCRIPTED(create_backend, (void *a, const char *b, void *c, void **d), (a, b, c, d))
PLAIN(destroy_backend, (void *a), (a))
SCRIPTED(create_reg_dlist, (int a, void **b), (a, b))
SCRIPTED(reg_dlist_add_desc,
         (void *a, uintptr_t b, size_t c, uint64_t d, const void *e, size_t f), (a, b, c, d, e, f))
PLAIN(destroy_reg_dlist, (void *a), (a))
SCRIPTED(register_mem, (void *a, void *b, void *c), (a, b, c))
SCRIPTED(deregister_mem, (void *a, void *b, void *c), (a, b, c))
SCRIPTED(create_xfer_dlist, (int a, void **b), (a, b))
SCRIPTED(xfer_dlist_add_desc, (void *a, uintptr_t b, size_t c, uint64_t d), (a, b, c, d))
PLAIN(destroy_xfer_dlist, (void *a), (a))
SCRIPTED(create_xfer_req, (void *a, int b, void *c, void *d, const char *e, void **f, void *g),
         (a, b, c, d, e, f, g))
SCRIPTED(get_notifs, (void *a, void *b, void *c), (a, b, c))
SCRIPTED(create_notif_map, (void **a), (a))
PLAIN(destroy_notif_map, (void *a), (a))
PLAIN(notif_map_clear, (void *a), (a))
PLAIN(notif_map_size, (void *a, size_t *b), (a, b))
PLAIN(notif_map_get_agent_at, (void *a, size_t b, const char **c), (a, b, c))
PLAIN(notif_map_get_notifs_size, (void *a, const char *b, size_t *c), (a, b, c))
PLAIN(notif_map_get_notif, (void *a, const char *b, size_t c, const void **d, size_t *e),
      (a, b, c, d, e))

/* --- requests that are held back ------------------------------------------------------------- */

static int find_held(void *request)
{
    for (int i = 0; i < held_count; i++)
        if (held[i] == request)
            return i;
    return -1;
}

static int really_post(void *agent, void *request)
{
    static int (*call)(void *, void *, void *);
    if (call == NULL)
        call = real("post_xfer_req");
    return call(agent, request, NULL);
}

int nixl_capi_post_xfer_req(void *agent, void *request, void *options)
{
    int value = 0;

    (void)options;
    switch (on("post_xfer_req", &value)) {
    case FAIL:
        return value;
    case HOLD:
        pthread_mutex_lock(&lock);
        if (held_count == MOST_HELD)
            abort();
        held[held_count++] = request;
        pthread_mutex_unlock(&lock);
        return IN_PROGRESS;
    default:
        return really_post(agent, request);
    }
}

int nixl_capi_get_xfer_status(void *agent, void *request)
{
    static int (*call)(void *, void *);
    bool mine, now = false;
    int value = 0;
    int i;

    switch (on("get_xfer_status", &value)) {
    case FAIL:
        return value;
    case HOLD:
        return IN_PROGRESS;
    default:
        break;
    }
    pthread_mutex_lock(&lock);
    i = find_held(request);
    mine = i >= 0;
    if (mine && released) {
        held[i] = held[--held_count];
        now = true;
    }
    pthread_mutex_unlock(&lock);
    if (now)
        return really_post(agent, request);
    if (mine)
        return IN_PROGRESS;
    if (call == NULL)
        call = real("get_xfer_status");
    return call(agent, request);
}

static void forget(void *request)
{
    pthread_mutex_lock(&lock);
    int i = find_held(request);
    if (i >= 0)
        held[i] = held[--held_count];
    pthread_mutex_unlock(&lock);
}

int nixl_capi_release_xfer_req(void *agent, void *request)
{
    static int (*call)(void *, void *);
    int value = 0;

    if (on("release_xfer_req", &value) == FAIL)
        return value;
    forget(request);
    if (call == NULL)
        call = real("release_xfer_req");
    return call(agent, request);
}

PLAIN(destroy_xfer_req, (void *a), (a))

/* --- notifications ---------------------------------------------------------------------------- */

struct message {
    void *agent;
    char *peer;
    void *data;
    size_t size;
    int delay;
    struct message *next;
};

/* Those that are late. An agent that is destroyed meanwhile sends nothing any more. */
static pthread_mutex_t late_lock = PTHREAD_MUTEX_INITIALIZER;
static struct message *late;

static int really_notify(void *agent, const char *peer, const void *data, size_t size)
{
    static int (*call)(void *, const char *, const void *, size_t, void *);
    if (call == NULL)
        call = real("gen_notif");
    return call(agent, peer, data, size, NULL);
}

static void *notify_later(void *argument)
{
    struct message *message = argument;
    struct message **link = &late;

    usleep(message->delay * 1000);
    pthread_mutex_lock(&late_lock);
    while (*link != message)
        link = &(*link)->next;
    *link = message->next;
    if (message->agent)
        really_notify(message->agent, message->peer, message->data, message->size);
    pthread_mutex_unlock(&late_lock);
    free(message->data);
    free(message->peer);
    free(message);
    return NULL;
}

int nixl_capi_destroy_agent(void *agent)
{
    static int (*call)(void *);
    int value = 0;

    switch (on("destroy_agent", &value)) {
    case FAIL: return value;
    case DROP: return SUCCESS;
    default: break;
    }
    pthread_mutex_lock(&late_lock);
    for (struct message *each = late; each; each = each->next)
        if (each->agent == agent)
            each->agent = NULL;
    pthread_mutex_unlock(&late_lock);
    if (call == NULL)
        call = real("destroy_agent");
    return call(agent);
}

int nixl_capi_gen_notif(void *agent, const char *peer, const void *data, size_t size, void *options)
{
    struct message *message;
    pthread_t thread;
    char other[32];
    int value = 0;

    (void)options;
    switch (on("gen_notif", &value)) {
    case FAIL:
        return value;
    case DROP:
        return SUCCESS;
    case TWICE:
        really_notify(agent, peer, data, size);
        break;
    case FOREIGN:
        for (int i = 0; i < value; i++) {
            for (size_t j = 0; j < sizeof other; j++)
                other[j] = (char)(i * 31 + j * 7); /* nulls and invalid UTF-8 among them */
            really_notify(agent, peer, other, i % sizeof other + 1);
        }
        break;
    case LATE:
        message = malloc(sizeof *message);
        *message = (struct message){agent, strdup(peer), malloc(size), size, value, NULL};
        memcpy(message->data, data, size);
        pthread_mutex_lock(&late_lock);
        message->next = late;
        late = message;
        pthread_mutex_unlock(&late_lock);
        if (pthread_create(&thread, NULL, notify_later, message))
            abort();
        pthread_detach(thread);
        return SUCCESS;
    default:
        break;
    }
    return really_notify(agent, peer, data, size);
}
