"""What a program holds of an operation, as far as it is native.

What is ordinary takes one call: it reads what the program has given, registers and starts. What is
unusual, or wrong, is left to the classes above these, which have the words for it. All of it runs
under the GIL, on the program's threads.
"""

cimport cython

from nixl_connect._native.fork cimport fork_generation
from nixl_connect._native.operation cimport Operation
from nixl_connect._native.ordinary cimport Ordinary
from nixl_connect._native.plan cimport Local, Plan
from nixl_connect._native.span cimport Span, have_streams, taken, unchanged
from nixl_connect._native.text cimport describe, text_of

from os import urandom

from nixl_connect._native.used import MANY as _MANY

cdef enum:
    KEY_BYTES = 16


@cython.auto_pickle(False)
cdef class Handle:
    """What is common to both sides.

    What derives from it has `_look`, which takes unusual descriptors and says what is wrong.

    Attributes
    ----------
    _connection : Connection
        Where the operation is.
    _native : Operation or None
        None until it has begun.
    _released : bool
        Whether a ``with`` block has been left.
    _timeout : float
        Seconds after which it fails; infinity for never.
    _items : list
        The descriptors as they were given.
    _descriptors : list of Span
        The same, but for blocks what they are of.
    _local : Local
        The memory.
    """

    cdef int take(self, object connection, object given, object timeout, bint written) except -1:
        """Note what it is about, where there is nothing to say against it; else have `_look` do so.
        """
        cdef Ordinary ordinary = connection._ordinary
        cdef tuple plain
        if self._native is not None:
            raise RuntimeError("the operation has been made")
        self._connection = connection
        self.ordinary = ordinary
        self._timeout = ordinary.timeout if timeout is None else timeout
        # Sizes are read once: pools change that of a descriptor for their next operation.
        plain = taken(given, ordinary.most, written, ordinary.reference)
        if plain is None:
            self._look(given, written)
        else:
            self._items = self._descriptors = plain[0]
            self._local = plain[1]
        return 0

    def _wait(self, timeout: float | None) -> bool:
        """Block for the end of what has begun; return whether it came in time."""
        cdef Operation native = self._native
        cdef bint ended
        if self.ordinary.reactor.generation != fork_generation():
            self._connection._engine.refuse_after_fork()
        ended = native.wait(timeout)
        self.ordinary.collector.run(False)
        return ended


@cython.auto_pickle(False)
cdef class Offer(Handle):
    """The passive side.

    Attributes
    ----------
    _hold : Hold or None
        What has registered its memory; None until it has begun.
    _notification_key : str
        What a peer notifies it with.
    _transfers : int
        How many transfers complete it; 0 where only its owner does.
    _stream : bytes or None
        NIXL's metadata of its memory, as a zlib stream; None until somebody asks.
    _told, _told_in_hex : object or None
        What peers are told of it; None until somebody asks.
    """

    def _make(
        self, connection: object, given: object, timeout: float | None, bint written,
        uint64_t transfers
    ) -> bool:
        """Take what a program gives, and begin if that takes no time; return whether it has begun.

        Parameters
        ----------
        connection : Connection
            Where.
        given : object
            Descriptors.
        timeout : float, optional
            Seconds after which it fails, as `seconds` returns them; by default the connector's.
        written : bool
            Whether the peer writes; else it reads.
        transfers : int
            How many transfers complete it; 0 where only its owner does.

        Raises
        ------
        RefusedError
            NIXL refuses to register the memory.
        """
        self.take(connection, given, timeout, written)
        self._transfers = transfers
        self._notification_key = urandom(KEY_BYTES).hex()
        if transfers != 1:
            self._notification_key += (<bytes>_MANY).decode()
        self.written = written
        return not have_streams(self._descriptors) and self.begin()

    cdef bint begin(self) except -1:
        cdef Operation native
        if self.ordinary.sealed:
            return False  # the seal comes between
        native = self.ordinary.offer(
            self._local, self._notification_key.encode("ascii"), self._timeout, self.written,
            self._transfers
        )
        if native is None:
            return False
        self._native = native
        self._hold = native.hold
        return True

    def _begin_at_once(self) -> bool:
        """Register and listen, if all is ordinary; else leave it to `_begin`. Takes no time."""
        return self.begin()

    def _text(self, bint hex_encode) -> str | None:
        """Return the wire form of NIXL's metadata of its memory.

        None where the operation has not begun or has ended. Raises as `describe`.
        """
        if (
            self._native is None
            or self._hold is None
            or self.ordinary.reactor.generation != fork_generation()
            or not self._native.expose()
        ):
            return None
        if self._stream is None:
            self._stream = describe(
                self.ordinary.agent, self._hold, self._local.mem_type, self.ordinary.head
            )
            if self._stream is None:
                return None
        return self._stream.hex() if hex_encode else text_of(self._stream)

    def _plain(self, Py_ssize_t most) -> list[object] | None:
        """Return what peers are told of each descriptor; None where they are blocks, or many."""
        cdef Local local = self._local
        cdef Span span
        cdef list told
        if (
            local.regions is not local.registered
            or local.registered.count > most
            or not unchanged(self._descriptors, local.registered)
        ):
            return None
        told = []
        for span in self._descriptors:
            told.append(span.metadata if span._metadata is None else span._metadata)
        return told


@cython.auto_pickle(False)
cdef class Transfer(Handle):
    """The active side.

    What derives from it has `_checked`, which makes a plan of unusual metadata and says what is
    wrong.

    Attributes
    ----------
    _plan : Plan
        What it is about.
    """

    def _make(
        self, connection: object, metadata: object, given: object, timeout: float | None,
        int kind, bint start, bint whole
    ) -> bool:
        """Take what a program gives, and begin if that takes no time; return whether it has begun.

        Parameters
        ----------
        connection : Connection
            Where.
        metadata : RdmaMetadata
            The peer's.
        given : object
            Descriptors.
        timeout : float, optional
            Seconds after which it fails, as `seconds` returns them; by default the connector's.
        kind : int
            NIXL's: 0 to read, 1 to write.
        start : bool
            Whether to begin.
        whole : bool
            Whether it is about all that the metadata describes.

        Raises
        ------
        RefusedError
            NIXL refuses to register the memory.
        """
        cdef Plan plan = None
        cdef bint now
        self.take(connection, given, timeout, kind == 0)
        now = start and not have_streams(self._descriptors)
        if whole and not self.ordinary.sealed:
            plan = self.ordinary.plan(kind, metadata, self._local, self._timeout, now)
        self._plan = self._checked(metadata) if plan is None else plan
        return now and self.begin()

    cdef bint begin(self) except -1:
        self._native = self.ordinary.begin(self._plan)
        return self._native is not None

    def _begin_at_once(self) -> bool:
        """Register and start, if all is ordinary; else leave it to `_begin`. Takes no time."""
        return self.begin()
