"""The doorbell: how peers on one host say "look now", and tell each other what has ended.

NIXL has nothing to wait on: a notification is seen when somebody looks, and a small transfer may
wait for that too. So an agent has a datagram socket in the abstract namespace, named after the
agent, on which its completion thread, or an event loop, sleeps. Who begins a transfer with it sends
one byte there, and where it takes long whose doorbell to look for meanwhile; who has ended one
sends a byte and the notification key. There it is as good as by NIXL: the kernel has queued it, or
says that it has not, and then NIXL sends it, with a byte here that it has come. A byte alone is a
hint: lost or forged, it makes a thread look for a moment; and a key that nobody waits for is no
more. The kernel says who rang. Another user's rings that bring nothing are soon not listened to.
Those of the same user always are, if up to a millisecond late while others flood: a peer may need
this side's look for transfers of which no notification tells.
Peers on other hosts, or in other network namespaces, have no socket of that name, and nothing is
sent.

The name is a digest of the agent's name and of how it is reached, so no other agent has it. The
socket ends with the agent, and with its process: an exec closes it, and a forked child does not
have it. So as long as it is there, a peer on this host is who it was when it was met.
"""

from libc.errno cimport EAGAIN, ECONNREFUSED, errno
from libc.string cimport memcpy, memset

from nixl_connect._native.file_descriptors cimport own_close, own_socket
from nixl_connect._native.posix cimport (
    AF_UNIX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    NC_SUN_PATH,
    SOCK_DGRAM,
    SOCK_NONBLOCK,
    bind,
    connect,
    sendto,
    sockaddr,
    sockaddr_un,
)

cdef enum:
    PREFIX_SIZE = 16            # with the null that makes a name abstract

cdef extern from *:
    """
    #include <string.h>
    #include <sys/socket.h>
    #include <unistd.h>
    /* struct ucred is there with _GNU_SOURCE only, which Python's headers may come too late for. */
    struct nc_ucred { int pid; unsigned int uid; unsigned int gid; };
    #ifndef SCM_CREDENTIALS
    #define SCM_CREDENTIALS 2
    #endif

    /* Have the kernel say with each datagram who sent it; -1 if it does not. */
    static inline int nc_ask_sender(int fd) {
        int yes = 1;
        return setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes);
    }

    /* Take a datagram, and say how long it was: -1 if there is none. `sender` is the number of the
       process that sent it if that is of this user (0 where it has none here), else -1. There is
       room for the sender, which comes first, and no more: descriptors that somebody sends along do
       not get into this process. */
    static inline ssize_t nc_take(int fd, char *text, size_t room, int *sender) {
        union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(struct nc_ucred))]; } control;
        struct iovec part = { text, room };
        ssize_t size;
        struct msghdr message;
        struct cmsghdr *header;
        struct nc_ucred who;
        memset(&message, 0, sizeof message);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        size = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
        if (size < 0) return -1;
        header = CMSG_FIRSTHDR(&message);
        *sender = -1;
        if (header != NULL && header->cmsg_level == SOL_SOCKET
            && header->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&who, CMSG_DATA(header), sizeof who);
            if (who.uid == getuid() && who.pid >= 0) *sender = who.pid;
        }
        return size;
    }
    """
    int ask_sender "nc_ask_sender"(int fd) nogil
    ssize_t take "nc_take"(int fd, char* text, size_t room, int* sender) nogil

# The number is that of what has to be understood. Who does not understand it has another name for a
# doorbell, and so is on another host, as far as can be seen from here. What a peer may take for a
# mere ring, as a mover's word, keeps the number.
cdef const char* PREFIX = b"\0nixl_connect/2/"


cdef Address address_of(bytes identity) except *:
    """Return the address of an agent's doorbell: see `identity`."""
    cdef Address address
    if len(identity) != sizeof(Address):
        raise ValueError(f"an identity of {len(identity)} bytes")
    memcpy(&address, <const char*>identity, sizeof(Address))
    return address


cdef unsigned int _name(sockaddr_un* name, Address address) noexcept nogil:
    """Fill in a socket's name, and return its size."""
    cdef const unsigned char* digest = <const unsigned char*>&address
    cdef char* at = name.sun_path
    cdef int i
    memset(name, 0, sizeof(sockaddr_un))
    name.sun_family = AF_UNIX
    memcpy(at, PREFIX, PREFIX_SIZE)
    for i in range(16):
        at[PREFIX_SIZE + 2 * i] = c"a" + (digest[i] >> 4)
        at[PREFIX_SIZE + 2 * i + 1] = c"a" + (digest[i] & 15)
    return NC_SUN_PATH + PREFIX_SIZE + 32


cdef int open_bell(Address address, bint* named) noexcept nogil:
    """Return the socket of an agent's doorbell, or one that nobody can ring if its name is taken.

    Returns -1 where there is no socket to be had at all. `named` says whether it has the name.
    """
    cdef sockaddr_un name
    cdef unsigned int size = _name(&name, address)
    cdef int fd = own_socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)
    if fd >= 0 and ask_sender(fd):
        own_close(fd)
        return -1
    if fd >= 0:
        named[0] = bind(fd, <sockaddr*>&name, size) == 0
    return fd


cdef Heard _send(int fd, Address address, const char* text, size_t size) noexcept nogil:
    """Send a datagram to a peer's doorbell. Never blocks."""
    cdef sockaddr_un name
    cdef unsigned int length = _name(&name, address)
    if sendto(fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL, <sockaddr*>&name, length) >= 0:
        return HEARD
    if errno == EAGAIN:
        return FULL
    return NOBODY_THERE if errno == ECONNREFUSED else UNSAID


cdef void ring(int fd, Address address, bint ended) noexcept nogil:
    """Ring a peer's doorbell, if there is one on this host. Never blocks.

    `ended` says that a notification is there, else something is about to come.
    """
    cdef char said = ENDED if ended else BEGINS
    _send(fd, address, &said, 1)


cdef Heard tell(int fd, Address address, const char* key, size_t size) noexcept nogil:
    """Tell a peer by its doorbell of the transfer with this key. Never blocks.

    Not where the doorbell is full, by default of ten datagrams, or the key is long.
    """
    cdef char[ROOM] text
    if size >= ROOM:
        return UNSAID
    text[0] = TOLD
    memcpy(text + 1, key, size)
    return _send(fd, address, text, size + 1)


cdef Heard tell_mover(
    int fd, Address address, Address own, const char* key, size_t size
) noexcept nogil:
    """Tell a peer by its doorbell whose doorbell is that of who transfers its memory."""
    cdef char[ROOM] text
    if size > ROOM - 1 - sizeof(Address):
        return UNSAID
    text[0] = MOVES
    memcpy(text + 1, &own, sizeof(Address))
    memcpy(text + 1 + sizeof(Address), key, size)
    return _send(fd, address, text, 1 + sizeof(Address) + size)


cdef bint stands(int fd, Address address) noexcept nogil:
    """Whether an agent's doorbell is there. Wakes nobody.

    `fd` is of a datagram socket that is used for nothing else, by any number of threads: to be
    connected there means only that one could send without saying to whom.
    """
    cdef sockaddr_un name
    cdef unsigned int size = _name(&name, address)
    return connect(fd, <sockaddr*>&name, size) == 0


cdef bint vanished(int fd, Address address) noexcept nogil:
    """Whether an agent's doorbell, which was there, is no more: as `stands`.

    Not where this process may not connect there, as in some sandboxes, though it is rung.
    """
    return not stands(fd, address) and errno == ECONNREFUSED


cdef bint take_ring(int fd, Ring* ring) noexcept nogil:
    """Take one of the datagrams that have come; False if there is none."""
    cdef ssize_t size = take(fd, ring.text, ROOM, &ring.process)
    if size < 0:
        return False
    ring.said = <Said>ring.text[0] if size else BEGINS
    ring.key_size = 0
    if size > ROOM:
        return True  # what is longer is nobody's key
    if ring.said == TOLD:
        ring.key = ring.text + 1
        ring.key_size = size - 1
    elif ring.said == MOVES and size > 1 + <ssize_t>sizeof(Address):
        memcpy(&ring.mover, ring.text + 1, sizeof(Address))
        ring.key = ring.text + 1 + sizeof(Address)
        ring.key_size = size - 1 - sizeof(Address)
    return True
