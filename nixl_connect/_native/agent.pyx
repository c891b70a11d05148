"""One NIXL agent, safe to call from any thread.

Every native call is made without the GIL. `gate` keeps the agent alive across a call: calls hold it
shared, `close` holds it alone, so the handle cannot vanish under a call that another thread is in.
NIXL itself is created with its strict thread mode, which serialises what enters an agent.

Whether a connection stands changes when UCX makes progress, and then only. Calls that make it, and
a load that relies on a connection, hold `progress`. NIXL's own lock serialises the same calls, so
nobody waits for longer.

A forked child inherits the object but neither its threads nor a usable lock: an agent of another
generation (see `fork`) refuses every call before it touches the gate.
"""

cimport cython
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

from nixl_connect._native.atomic cimport atomic_add, peek_int
from nixl_connect._native.capi cimport (
    SYNC_STRICT,
    AgentConfig,
    api,
    check,
)
from nixl_connect._native.file_descriptors cimport hang_up, label_from_here, next_label
from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.packing cimport Regions
from nixl_connect._native.posix cimport (
    init_brief,
    pthread_mutex_destroy,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_rwlock_destroy,
    pthread_rwlock_init,
    pthread_rwlock_rdlock,
    pthread_rwlock_unlock,
    pthread_rwlock_wrlock,
)
from nixl_connect._native.process cimport Kept, keep, put_back
from nixl_connect._native.record cimport PROBE, PROBE_SIZE

from nixl_connect._native.envelope import renamed

import contextlib

# In which generation the first agent was made, or -1. UCX has threads and sockets of its own that a
# fork breaks for good, so no agent is made in a later one.
cdef int _used_in = -1


class AgentClosedError(Exception):
    """The agent has been closed."""


class AgentForkedError(Exception):
    """The agent was made by the parent of this process, or NIXL was used there."""


def keep_forever(thing: object) -> None:
    """Have something never be freed, not at the interpreter's exit either."""
    Py_INCREF(thing)


cdef int _check(int status, const char* call) except -1:
    if status == AGENT_CLOSED:
        raise AgentClosedError
    if status == AGENT_FORKED:
        raise AgentForkedError
    return check(status, call)


cdef class LongCall:
    """Has others know, within a ``with`` block, that NIXL is busy for long: they would wait."""

    cdef Agent agent

    def __cinit__(self, Agent agent not None):
        self.agent = agent

    def __enter__(self) -> None:
        atomic_add(&self.agent.long_calls, 1)

    def __exit__(self, *exception: object) -> None:
        atomic_add(&self.agent.long_calls, -1)


@cython.no_gc  # it refers to nothing that could refer back
cdef class Agent:
    """A NIXL agent.

    Parameters
    ----------
    name : bytes
        Name under which peers know the agent.
    called : bytes, optional
        What NIXL is to call it, if that is another name: metadata says `name` all the same.
    """

    def __cinit__(self, bytes name not None, bytes called=None):
        cdef AgentConfig config
        cdef const char* c_name
        cdef Kept kept
        cdef int rc
        global _used_in
        if _used_in not in (-1, fork_generation()):
            raise AgentForkedError
        _used_in = fork_generation()
        self.nixl = api()
        self.name = name
        self.called = c_name = name if called is None else called
        self.backends = []
        self.labels = {}
        self.left = []
        self.generation = fork_generation()
        config.enable_progress_thread = False  # the reactor polls: see its thread
        config.enable_listen_thread = False
        config.listen_port = 0
        config.thread_sync = SYNC_STRICT
        config.workers = 1
        config.progress_delay_us = 0
        config.listen_delay_us = 0
        config.capture_telemetry = False
        if pthread_rwlock_init(&self.gate, NULL) or init_brief(&self.progress):
            raise MemoryError("pthread_rwlock_init")
        with nogil:
            keep(&kept)
            rc = self.nixl.create_configured_agent(c_name, &config, &self.handle)
            put_back(&kept)
        check(rc, "create_configured_agent")

    def __dealloc__(self):
        # The last reference is gone, so nobody is in a call. In a forked child the agent's memory
        # is a copy whose threads do not exist: leave it.
        if self.generation == fork_generation():
            self._destroy()
            pthread_rwlock_destroy(&self.gate)
            pthread_mutex_destroy(&self.progress)

    cdef bint keeps_busy(self) noexcept nogil:
        return peek_int(&self.long_calls) > 0

    @property
    def is_busy(self) -> bool:
        """Whether a thread keeps NIXL busy for long, see `LongCall`."""
        return self.keeps_busy()

    cdef int enter(self) noexcept nogil:
        """Hold the agent open until `leave`; return 0, AGENT_CLOSED or AGENT_FORKED."""
        if self.generation != fork_generation():
            return AGENT_FORKED
        pthread_rwlock_rdlock(&self.gate)
        if self.handle is NULL:
            pthread_rwlock_unlock(&self.gate)
            return AGENT_CLOSED
        return 0

    cdef void leave(self) noexcept nogil:
        pthread_rwlock_unlock(&self.gate)

    cdef void _destroy(self):
        cdef void* handle = self.handle
        cdef uint64_t backend
        cdef Kept kept
        self.handle = NULL
        if handle is not NULL:
            with nogil:
                keep(&kept)
                self.nixl.destroy_agent(handle)
                put_back(&kept)
        while self.backends:
            backend = self.backends.pop()
            self.nixl.destroy_backend(<void*>backend)

    def close(self) -> None:
        """Destroy the agent, once calls of other threads have left it. Idempotent."""
        if self.generation != fork_generation():
            return
        with nogil:
            pthread_rwlock_wrlock(&self.gate)
        try:
            self._destroy()
        finally:
            pthread_rwlock_unlock(&self.gate)

    def load_plugin(self, bytes plugin not None) -> None:
        """Load a transport plugin that NIXL has, and the libraries that it needs; start nothing.

        NIXL never unloads it. So what has to be done to its libraries can be, before they are used.
        """
        cdef void* mem_types = NULL
        cdef void* params = NULL
        cdef const char* c_plugin = plugin
        cdef Kept kept
        cdef int rc
        if self.nixl.get_plugin_params is NULL or self.nixl.destroy_mem_list is NULL:
            return  # it comes with `create_backend`
        with nogil:
            rc = self.enter()
            if rc == 0:
                keep(&kept)
                rc = self.nixl.get_plugin_params(self.handle, c_plugin, &mem_types, &params)
                put_back(&kept)
                self.leave()
            if rc == 0:
                self.nixl.destroy_mem_list(mem_types)
                self.nixl.destroy_params(params)
        _check(rc, "get_plugin_params")

    def create_backend(self, bytes plugin, dict parameters) -> None:
        """Start a transport plugin.

        Parameters
        ----------
        plugin : bytes
            Its name, such as ``b"UCX"``.
        parameters : dict of bytes to bytes
            Its options; those not given keep their defaults.
        """
        cdef void* params = NULL
        cdef void* backend = NULL
        cdef const char* c_plugin = plugin
        cdef Kept kept
        cdef int rc
        check(self.nixl.create_params(&params), "create_params")
        try:
            for key, value in parameters.items():
                check(self.nixl.params_add(params, <bytes>key, <bytes>value), "params_add")
            with nogil:
                rc = self.enter()
                if rc == 0:
                    keep(&kept)
                    rc = self.nixl.create_backend(self.handle, c_plugin, params, &backend)
                    put_back(&kept)
                    self.leave()
            _check(rc, "create_backend")
        finally:
            self.nixl.destroy_params(params)
        self.backends.append(<uint64_t>backend)

    def plugins(self) -> list[str]:
        """Return the names of the transport plugins that the library found."""
        cdef void* names = NULL
        cdef const char* name = NULL
        cdef size_t count = 0
        cdef size_t i
        cdef int rc
        with nogil:
            rc = self.enter()
            if rc == 0:
                rc = self.nixl.get_available_plugins(self.handle, &names)
                self.leave()
        _check(rc, "get_available_plugins")
        found = []
        try:
            check(self.nixl.string_list_size(names, &count), "string_list_size")
            for i in range(count):
                check(self.nixl.string_list_get(names, i, &name), "string_list_get")
                found.append(name.decode())
        finally:
            self.nixl.destroy_string_list(names)
        return found

    def metadata(self) -> bytes:
        """Return the agent's whole metadata: connection info and all that is registered."""
        cdef void* data = NULL
        cdef size_t size = 0
        cdef int rc
        with nogil:
            rc = self.enter()
            if rc == 0:
                rc = self.nixl.get_local_md(self.handle, &data, &size)
                self.leave()
        return self._named(self._take(rc, data, size, "get_local_md"))

    cpdef bytes partial_metadata(self, Regions regions, int mem_type):
        """Return the metadata of some regions, each exactly as registered.

        With connection info when `regions` is None, without it otherwise: the C API offers no more.
        """
        cdef void* dlist = NULL
        cdef void* data = NULL
        cdef size_t size = 0
        cdef int rc
        with nogil:
            if regions is None:
                rc = self.nixl.create_reg_dlist(mem_type, &dlist)
            else:
                rc = regions.reg_dlist(self.nixl, mem_type, &dlist)
            if rc == 0:
                rc = self.enter()
                if rc == 0:
                    rc = self.nixl.get_local_partial_md(self.handle, dlist, &data, &size, NULL)
                    self.leave()
                self.nixl.destroy_reg_dlist(dlist)
        taken = self._take(rc, data, size, "get_local_partial_md")
        return self._named(taken) if regions is None else taken

    cdef bytes _named(self, bytes metadata):
        """Return metadata with connection info as peers are to have it."""
        return metadata if self.called == self.name else renamed(metadata, self.name)

    cdef bytes _take(self, int rc, void* data, size_t size, const char* call):
        """Copy what NIXL returned in malloc'ed memory, and free that."""
        _check(rc, call)
        try:
            return (<char*>data)[:size]
        finally:
            free(data)

    def load_remote(self, bytes metadata) -> bytes:
        """Load a peer's metadata and return the peer's name.

        NIXL does not validate the blob: malformed bytes crash the process. Callers parse it first.
        """
        cdef char* name = NULL
        cdef const char* data = metadata
        cdef size_t size = len(metadata)
        cdef uint64_t label = next_label()
        cdef int rc
        with nogil:
            rc = self.enter()
            if rc == 0:
                label_from_here(label)  # UCX opens a connection's sockets in this call
                rc = self.nixl.load_remote_md(self.handle, data, size, &name)
                label_from_here(0)
                self.leave()
        if rc:
            self.left.append(label)
        _check(rc, "load_remote_md")
        try:
            self.labels[<bytes>name] = label
            return <bytes>name
        finally:
            free(name)

    def load_more(self, bytes name not None, bytes metadata not None) -> bool:
        """Load more regions of a connected peer, if the connection stands.

        NIXL has no way to ask, but refuses to send over a broken one: the peer gets a message that
        says nothing. Over a broken connection NIXL would forget the peer while UCX keeps its name,
        and the peer could not be loaded again for the life of the agent, not even after a restart.

        Returns
        -------
        bool
            False, and nothing, if the connection is known to be broken.
        """
        cdef char* loaded = NULL
        cdef const char* c_name = name
        cdef const char* data = metadata
        cdef size_t size = len(metadata)
        cdef int sent = 0
        cdef int rc
        with nogil:
            rc = self.enter()
            if rc == 0:
                pthread_mutex_lock(&self.progress)
                sent = self.nixl.gen_notif(self.handle, c_name, PROBE, PROBE_SIZE, NULL)
                if sent == 0:
                    rc = self.nixl.load_remote_md(self.handle, data, size, &loaded)
                pthread_mutex_unlock(&self.progress)
                self.leave()
        free(loaded)
        _check(rc, "load_remote_md")
        return sent == 0

    def invalidate_remote(self, bytes name) -> None:
        """Disconnect a peer and forget its regions; what is in flight to it fails."""
        cdef const char* c_name = name
        cdef int rc
        with nogil:
            rc = self.enter()
            if rc == 0:
                rc = self.nixl.invalidate_remote_md(self.handle, c_name)
                self.leave()
        label = self.labels.pop(name, None)
        if label is not None:
            self.left.append(label)
        _check(rc, "invalidate_remote_md")

    def hang_up(self, double quiet) -> int:
        """Close what UCX has kept of connections that were taken down, on both sides.

        Parameters
        ----------
        quiet : float
            For how many seconds nothing may have gone over a connection, between calls of this.

        Returns
        -------
        int
            How many are left.
        """
        for label in self.left.copy():
            if hang_up(label, <int64_t>(quiet * 1e9)) == 0:
                with contextlib.suppress(ValueError):  # another thread was faster
                    self.left.remove(label)
        return len(self.left)

    def reaches(self, bytes name not None) -> bool:
        """Whether the connection to a peer stands, as far as UCX knows.

        NIXL has no way to ask, but refuses to send over a broken one.
        """
        cdef const char* c_name = name
        cdef int rc
        with nogil:
            rc = self.enter()
            if rc == 0:
                rc = self.nixl.gen_notif(self.handle, c_name, PROBE, PROBE_SIZE, NULL)
                self.leave()
        return rc == 0

    cdef int create_request(
        self, int kind, Regions local, int local_mem, Regions remote, int remote_mem,
        const char* peer, void** out
    ) noexcept nogil:
        """Build a transfer request, which belongs to the caller."""
        cdef void* mine = NULL
        cdef void* theirs = NULL
        cdef int rc = local.xfer_dlist(self.nixl, local_mem, &mine)
        if rc:
            return rc
        rc = remote.xfer_dlist(self.nixl, remote_mem, &theirs)
        if rc == 0:
            rc = self.enter()
            if rc == 0:
                rc = self.nixl.create_xfer_req(self.handle, kind, mine, theirs, peer, out, NULL)
                self.leave()
            self.nixl.destroy_xfer_dlist(theirs)
        self.nixl.destroy_xfer_dlist(mine)
        return rc
