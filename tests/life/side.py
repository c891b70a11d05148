"""One side of an operation whose life is played: a process that does as it is told, as peer.py."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import peer

import nixl_connect as nc
from nixl_connect._native.operation import Reason

SIZE = 1000
# Seconds that a connector which closes waits for what is in flight.
DRAIN = 0.2


class Side(peer.Peer):
    """Has one connector with one operation at a time; each public method is a command."""

    def meet(self, quarantine: float, far: bool) -> dict:
        """Begin anew, with a new connector."""
        if self.connector is not None:
            self.behave()
            self.close()
        self.operation: Any = None
        self.ended: dict[str, Any] = {}
        self.buffer: np.ndarray | None = None
        self.connect(options={"quarantine": quarantine, "drain": DRAIN})
        if far:
            self.as_if_elsewhere()
        return {}

    def offer(self, written: bool, transfers: int, timeout: float | None) -> dict:
        """Make an offer, and do not describe it yet."""
        make = self.connector.create_writable_blocking
        if not written:
            make = self.connector.create_readable_blocking
        self.buffer = self._buffer(SIZE, None if written else 1)
        self.operation = make(
            nc.Descriptor(self.buffer), transfers=transfers or None, timeout=timeout
        )
        return {}

    def describe(self) -> dict:
        """Tell the metadata."""
        return {"metadata": self.operation.metadata().model_dump()}

    def begin(self, metadata: dict, written: bool, timeout: float | None, held: bool) -> dict:
        """Begin a transfer, which NIXL has in name only where it is held."""
        if held:
            self.misbehave("post_xfer_req", "hold")
        self.buffer = self._buffer(SIZE, 2 if written else None)
        told, local = nc.RdmaMetadata.model_validate(metadata), nc.Descriptor(self.buffer)
        if written:
            self.operation = self.connector.begin_write_blocking(local, told, timeout=timeout)
        else:
            self.operation = self.connector.begin_read_blocking(told, local, timeout=timeout)
        return {}

    def let_go(self) -> dict:
        """Have NIXL go on with what it holds back."""
        ctypes.CDLL(os.environ["NIXL_CONNECT_LIBRARY"]).scripted_release()
        return {}

    def give_up(self) -> dict:
        """Cancel it."""
        self.operation.cancel()
        return {}

    def finish(self) -> dict:
        """End an offer."""
        self.operation.finish()
        return {}

    def shut(self) -> dict:
        """Close the connector; from then on see whether the memory is there."""
        self.connector.close_blocking()
        self.ended = self.look()
        self.there = weakref.ref(self.buffer)
        self.buffer = self.operation = None
        return {}

    def look(self) -> dict:
        """Tell all that there is to see."""
        if self.ended:
            gc.collect()
            return self.ended | {"memory": "free" if self.there() is None else "kept"}
        stats = self.connector.stats()["operations"]
        memory = "held" if stats["held_bytes"] else "free"
        native = self.operation._native
        told = {
            "status": int(self.operation.status),
            "reason": Reason(native.reason).name.lower().replace("_", " "),
            "memory": "quarantined" if stats["quarantined_bytes"] else memory,
            "digest": self._digest(self.buffer),
        }
        if isinstance(self.operation, nc.PassiveOperation):
            told["counted"] = [self.operation.transfers_done, self.operation.transfers_failed]
        return told


if __name__ == "__main__":
    peer.main(Side())
