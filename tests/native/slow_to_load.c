/* A library that the loader takes long to fill in: it asks for a function, which takes a while. */
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static int one(void) { return 1; }

/* Runs before the words beside its own are filled, so it may call nobody. */
static int (*choose(void))(void) {
    for (volatile long i = 0; i < 600000000; i++) {
    }
    return one;
}

int chosen(void) __attribute__((ifunc("choose")));

int open_some(void) {
    int ends[2];
    return chosen() == 1 && socket(AF_UNIX, SOCK_STREAM, 0) >= 0 && open("/dev/null", O_RDONLY) >= 0
            && pipe(ends) == 0
        ? 0
        : -1;
}
