# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What a passive operation tells of its memory: NIXL's metadata of it, as a zlib stream and text.

A region that is described again, as those of pools are and what was registered by hand, has its
stream at hand: with its registration, for as long as that lasts.
"""

from nixl_connect._native.agent import Agent
from nixl_connect._native.hold import Hold

TAG = "b64:"

def deflate(blob: bytes) -> bytes:
    """Return the blob as one zlib stream (RFC 1950): deflated if it is long, else only wrapped.

    A few hundred bytes, most of them keys and addresses, deflate badly, and it costs more than all
    else that metadata needs.
    """

def text_of(stream: bytes) -> str:
    """Return the wire form of a zlib stream: its base64 (RFC 4648), tagged."""

def blob_of(text: str, limit: int) -> bytes | None:
    """Return the blob whose stream `deflate` has only wrapped, from its wire form in base64.

    Returns
    -------
    bytes or None
        None where it is over `limit` bytes, of another form, or wrong: for who reads every form.
    """

def describe(agent: Agent, hold: Hold, mem_type: int, head: bytes) -> bytes | None:
    """Return NIXL's metadata of what a hold has registered, with connection info, compressed.

    Parameters
    ----------
    agent : Agent
        Where.
    hold : Hold
        What to describe.
    mem_type : int
        Its memory type.
    head : bytes
        The agent's metadata up to its sections.

    Returns
    -------
    bytes or None
        None where the hold has ended, and nothing is registered any more.

    Raises
    ------
    NativeError
        NIXL fails.
    """
