# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Builds the requests of a transfer, whose registrations outlive them."""

from nixl_connect._native.hold import Hold
from nixl_connect._native.lane import Lane
from nixl_connect._native.operation import Operation
from nixl_connect._native.packing import Regions

class NotRegisteredError(Exception):
    """The agent has not registered memory of its own."""

def add_part(
    operation: Operation,
    hold: Hold,
    lane: Lane | None,
    peer: bytes,
    kind: int,
    local: Regions,
    local_mem: int,
    remote: Regions,
    remote_mem: int,
    *,
    registered: Regions,
    owners: list[object] | None,
    within: bool,
    patient: bool,
) -> None:
    """Add to an operation what to transfer: one request, of its connection's agent or of a lane's.

    NIXL picks, for each row, any registration that covers it, and the request refers to that
    one for as long as it lives. So all that cover a row are held, from before any could leave.
    Within this agent that is so on both sides, and the memory of both is here: what is held
    keeps it alive, too, whatever becomes of the passive operation.

    Parameters
    ----------
    operation : Operation
        Not started.
    hold : Hold
        Takes the registrations, which are those of its agent.
    lane : Lane or None
        Where to transfer it; each part of an operation on another lane.
    peer : bytes
        What that agent calls the peer.
    kind : int
        0 to read, 1 to write.
    local, remote : Regions
        What is transferred, row by row, within registered regions.
    local_mem, remote_mem : int
        Their memory types.
    registered : Regions
        What to register for the local ones.
    owners : list or None
        What keeps that alive, see `Hold.acquire`.
    within : bool
        Whether the peer is this agent.
    patient : bool
        Whether to register what takes long, and to wait for others.

    Raises
    ------
    NativeError
        NIXL refuses the transfer.
    RefusedError
        NIXL refuses to register the memory.
    NotRegisteredError
        The peer is this agent, and has not registered the remote regions.
    NotQuickError
        It takes patience, and there is none.
    """
