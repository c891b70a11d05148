"""What an operation is about: memory of this process, and of a peer."""

from nixl_connect._native.packing cimport Regions


from nixl_connect._native.envelope import Envelope


cdef class Local:
    """Memory of this process that an operation uses, all of one kind.

    Parameters
    ----------
    regions : Regions
        Its rows.
    registered : Regions
        What to register for them: the same, but for blocks the whole that they are in.
    mem_type : int
        NIXL's number of the memory type.
    memory : list
        What keeps it alive, for each row of `registered`.
    """

    def __init__(
        self, Regions regions not None, Regions registered not None, int mem_type,
        list memory not None
    ):
        self.regions = regions
        self.registered = registered
        self.mem_type = mem_type
        self._memory = memory

    @property
    def memory(self) -> list[object]:
        """What keeps it alive."""
        return self._memory


cdef Local local_of(Regions regions, int mem_type, list memory):
    """Make a Local of rows that are registered as they are."""
    cdef Local local = Local.__new__(Local)
    local.regions = local.registered = regions
    local.mem_type = mem_type
    local._memory = memory
    return local


cdef class Plan:
    """A transfer, before it is made.

    Parameters
    ----------
    kind : int
        NIXL's: 0 to read, 1 to write.
    local : Local
        Memory of this process.
    remote : Regions
        Memory of the peer, row by row.
    remote_mem : int
        Its memory type.
    described : Envelope
        The peer's metadata, parsed.
    blob : bytes
        The same, as NIXL takes it.
    key : bytes
        What to notify the peer with.
    timeout : float
        Seconds after which it fails; infinity for never.
    """

    def __cinit__(
        self, int kind, Local local not None, Regions remote not None, int remote_mem,
        described: Envelope, bytes blob not None, bytes key not None, double timeout
    ):
        self.kind = kind
        self.local = local
        self.remote = remote
        self.remote_mem = remote_mem
        self._described = described
        self.blob = blob
        self.key = key
        self.timeout = timeout

    @property
    def described(self) -> Envelope:
        """The peer's metadata, parsed."""
        return self._described
