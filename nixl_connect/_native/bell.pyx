"""The doorbell: how peers on one host say "look now".

NIXL has nothing to wait on: a notification is seen when somebody looks, and a small transfer may
wait for that too. So an agent has a datagram socket in the abstract namespace, named after the
agent, on which its completion thread, or an event loop, sleeps. Who begins or ends a transfer with
it sends one byte there, which says whether something begins or has ended. It is a hint: lost or
forged, it makes a thread look for a moment. The kernel says who rang. Another user's rings that
bring nothing are soon not listened to. Those of the same user always are, if up to a millisecond
late while others flood: a peer may need this side's look for transfers of which no notification
tells.
Peers on other hosts, or in other network namespaces, have no socket of that name, and nothing is
sent.

The name is a digest of the agent's name and of how it is reached, so no other agent has it. The
socket ends with the agent, and with its process: an exec closes it, and a forked child does not
have it. So as long as it is there, a peer on this host is who it was when it was met.
"""

from libc.errno cimport EAGAIN, errno
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
    PREFIX_SIZE = 14            # with the null that makes a name abstract
    # Bytes to take at a time: who rings more often wakes nobody more often.
    MOST = 64
    # What the byte is where something has ended.
    ENDED = 1

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

    /* Take a datagram: -1 if there is none, the number of the process that sent it if that is of
       this user (0 where it has none here), else -2. There is room for the sender, which comes
       first, and no more: descriptors that somebody sends along do not get into this process. */
    static inline int nc_take_ring(int fd, char *said) {
        union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(struct nc_ucred))]; } control;
        char byte = 0;
        struct iovec part = { &byte, 1 };
        struct msghdr message;
        struct cmsghdr *header;
        struct nc_ucred sender;
        memset(&message, 0, sizeof message);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        if (recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0) return -1;
        *said = byte;
        header = CMSG_FIRSTHDR(&message);
        if (header == NULL || header->cmsg_level != SOL_SOCKET
            || header->cmsg_type != SCM_CREDENTIALS) return -2;
        memcpy(&sender, CMSG_DATA(header), sizeof sender);
        return sender.uid != getuid() || sender.pid < 0 ? -2 : sender.pid;
    }
    """
    int ask_sender "nc_ask_sender"(int fd) nogil
    int take_ring "nc_take_ring"(int fd, char* said) nogil

cdef const char* PREFIX = b"\0nixl_connect/"


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


cdef int open_bell(Address address) noexcept nogil:
    """Return the socket of an agent's doorbell, or one that nobody can ring if its name is taken.

    Returns -1 where there is no socket to be had at all.
    """
    cdef sockaddr_un name
    cdef unsigned int size = _name(&name, address)
    cdef int fd = own_socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)
    if fd >= 0 and ask_sender(fd):
        own_close(fd)
        return -1
    if fd >= 0:
        bind(fd, <sockaddr*>&name, size)
    return fd


cdef bint ring(int fd, Address address, bint ended) noexcept nogil:
    """Ring a peer's doorbell; whether there is one on this host. Never blocks.

    `ended` says that a notification is there, else something is about to come.
    """
    cdef char said = ENDED if ended else 0
    cdef sockaddr_un name
    cdef unsigned int size = _name(&name, address)
    return sendto(fd, &said, 1, MSG_DONTWAIT | MSG_NOSIGNAL, <sockaddr*>&name, size) == 1 or (
        errno == EAGAIN
    )


cdef bint stands(int fd, Address address) noexcept nogil:
    """Whether an agent's doorbell is there. Wakes nobody.

    `fd` is of a datagram socket that is used for nothing else, by any number of threads: to be
    connected there means only that one could send without saying to whom.
    """
    cdef sockaddr_un name
    cdef unsigned int size = _name(&name, address)
    return connect(fd, <sockaddr*>&name, size) == 0


cdef Rung was_rung(int fd) noexcept nogil:
    """Take what has come; say whether it was anything, and who rang."""
    cdef Rung rung
    cdef int sender
    cdef int _i
    cdef char said = 0
    rung.who = NOBODY
    rung.process = 0
    rung.several = rung.announced = False
    for _i in range(MOST):
        sender = take_ring(fd, &said)
        if sender == -1:
            break
        rung.announced = rung.announced or said != ENDED
        if sender >= 0:
            rung.several = rung.several or (rung.who == OWN and sender != rung.process)
            rung.who = OWN
            rung.process = sender
        elif rung.who == NOBODY:
            rung.who = OTHERS
    return rung
