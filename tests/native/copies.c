/* Writes down, in the file that COPIES names, what the threads of lanes do: c for a copy between
   processes, y for a yield after one and before the next. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static __thread int copied = 0;
static __thread int yielded = 0;

static int is_lane(void) {
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    return strcmp(name, "nixl-lane") == 0;
}

static void note(void) {
    const char* path = getenv("COPIES");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file >= 0) {
        if (write(file, yielded ? "yc" : "c", yielded ? 2 : 1) < 0) abort();
        close(file);
    }
    copied = 1;
    yielded = 0;
}

int sched_yield(void) {
    yielded = copied;
    return (int)syscall(SYS_sched_yield);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec* here, unsigned long count,
                         const struct iovec* there, unsigned long there_count,
                         unsigned long flags) {
    if (is_lane()) note();
    return syscall(SYS_process_vm_readv, pid, here, count, there, there_count, flags);
}

ssize_t process_vm_writev(pid_t pid, const struct iovec* here, unsigned long count,
                          const struct iovec* there, unsigned long there_count,
                          unsigned long flags) {
    if (is_lane()) note();
    return syscall(SYS_process_vm_writev, pid, here, count, there, there_count, flags);
}
