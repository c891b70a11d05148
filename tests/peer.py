"""A second process for the tests: makes operations on command, with the blocking interface.

Commands and answers are JSON, one to a line, on standard input and output. Buffers are filled from
a seed, so that both sides know every byte.
"""

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from holding import footprint, held

import nixl_connect as nc
from nixl_connect.peers import ledger


def content(seed: int, size: int) -> np.ndarray:
    """Return `size` bytes that follow from `seed`."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def descriptors_of(array: np.ndarray, pieces: int) -> list[nc.Descriptor]:
    """Return descriptors of an array, cut into so many pieces, or as many as it has bytes."""
    return [nc.Descriptor(piece) for piece in pieces_of(array, pieces)]


def pieces_of(array: np.ndarray, pieces: int) -> list[np.ndarray]:
    """Return an array's pieces: so many, or as many as it has bytes."""
    edges = np.linspace(0, array.size, min(pieces, array.size) + 1).astype(int)
    return [array[i:j] for i, j in itertools.pairwise(edges)]


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes."""
    return hashlib.sha256(array).hexdigest()


def _named() -> tuple:
    """Return what moves named arrays, and what makes some: few peers need them."""
    sys.path.append(str(Path(__file__).parent / "named"))
    import sampled

    from nixl_connect import arrays

    return arrays, sampled


class Peer:
    """Carries out commands; each public method is one."""

    def __init__(self) -> None:
        self.connector: nc.Connector | None = None
        self.operations: dict[int, nc.AbstractOperation] = {}
        self.arrays: dict[int, list[np.ndarray]] = {}
        self.count = 0

    def _buffer(self, size: int, seed: int | None) -> np.ndarray:
        """Return a buffer, filled from the seed or with zeros."""
        return np.zeros(size, np.uint8) if seed is None else content(seed, size)

    def _digest(self, buffer: np.ndarray) -> str:
        """Return the SHA-256 of a buffer."""
        return digest(buffer)

    def _buffers(self, sizes: list[int], seed: int | None) -> list[np.ndarray]:
        return [
            self._buffer(size, None if seed is None else seed + i) for i, size in enumerate(sizes)
        ]

    def connect(self, name: str | None = None, options: dict | None = None) -> dict:
        """Make a new connector."""
        options = dict(options or {})
        if "keys" in options:
            options["keys"] = [bytes.fromhex(key) for key in options["keys"]]
        self.connector = nc.Connector(name, **options)
        return {"pid": os.getpid()}

    def keys_name_memory(self) -> dict:
        """Take all keys for such as those of network devices, each of which is for its memory."""
        ledger.names_none = lambda key: False
        for known in self.connector._open()._engine.peers.known():
            known.ledger = ledger.Ledger()
            known.everywhere.clear()
        return {}

    def as_if_elsewhere(self) -> dict:
        """Take nobody for a peer of this host: they are told by NIXL."""
        peers = self.connector._open()._engine.peers
        peers._is_near = lambda identity: False
        for known in peers.known():
            known.near = False
        return {}

    def array(self, size: int, seed: int) -> dict:
        """Make an array, of which `parts` offers some."""
        self.whole = self._buffer(size, seed)
        return {}

    def offer_arrays(self, seed: int, transfers: int | None = 1, compact: bool = False) -> dict:
        """Offer the sampled arrays."""
        arrays, sampled = _named()
        offer = arrays.offer_blocking(self.connector, sampled.sampled(seed), transfers=transfers)
        message = offer.message_bytes().hex() if compact else offer.message()
        return self._keep(offer.operation, []) | {"message": message}

    def fetch_arrays(self, message: str, only: list[str] | None = None) -> dict:
        """Fetch arrays, and tell what they are."""
        arrays, sampled = _named()
        got = arrays.fetch_blocking(self.connector, message, only=only, timeout=20)
        return {"arrays": sampled.told(got)}

    def push_arrays(self, message: str, seed: int, only: list[str] | None = None) -> dict:
        """Push the sampled arrays, or some."""
        arrays, sampled = _named()
        named = sampled.flat(sampled.sampled(seed))
        if only is not None:
            named = {name: named[name] for name in only}
        arrays.push_blocking(self.connector, message, named, only=only, timeout=20)
        return {}

    def parts(self, kind: str, parts: list[tuple[int, int]]) -> dict:
        """Offer parts of the array, each by its start and length."""
        make = getattr(self.connector, f"create_{kind}_blocking")
        arrays = [self.whole[start : start + length] for start, length in parts]
        operation = make([nc.Descriptor(array) for array in arrays])
        return self._keep(operation, arrays) | {"metadata": operation.metadata().model_dump()}

    def passive(
        self,
        kind: str,
        sizes: list[int],
        seed: int = 0,
        timeout: float | None = None,
        hex_encode: bool = False,
    ) -> dict:
        """Make a readable operation of known bytes, or a writable one of zeros."""
        arrays = self._buffers(sizes, seed if kind == "readable" else None)
        make = (
            self.connector.create_readable_blocking
            if kind == "readable"
            else self.connector.create_writable_blocking
        )
        operation = make([nc.Descriptor(array) for array in arrays], timeout=timeout)
        return self._keep(operation, arrays) | {
            "metadata": operation.metadata(hex_encode).model_dump()
        }

    def many(
        self, kind: str, sizes: list[int], pieces: int = 1, seed: int = 0, apart: bool = False
    ) -> dict:
        """Make as many passive operations as there are sizes, each of so many pieces.

        They are parts of one array, or each is one.
        """
        make = getattr(self.connector, f"create_{kind}_blocking")
        made = []
        for i, size in enumerate(sizes):
            array = self._buffer(size, seed + i if kind == "readable" else None)
            arrays = pieces_of(array, pieces)
            if apart:
                arrays = [each.copy() for each in arrays]
            operation = make([nc.Descriptor(each) for each in arrays])
            metadata = {"metadata": operation.metadata().model_dump()}
            made.append(self._keep(operation, arrays) | metadata)
        return {"made": made}

    def footprint(self) -> dict:
        """Tell what the process holds, and its connector."""
        peers = self.connector.stats()["peers"]
        return (
            footprint()
            | {"registrations": held(self.connector)["registrations"]}
            | {name: peers[name] for name in ("connections", "reloads")}
        )

    def wait_all(self, timeout: float = 30) -> dict:
        """Wait for every operation, and tell the SHA-256 of each one's buffers."""
        for operation in self.operations.values():
            operation.wait_for_completion_blocking(timeout)
        return {
            "digests": [self._digest(array) for arrays in self.arrays.values() for array in arrays]
        }

    def active(
        self,
        kind: str,
        metadata: dict,
        sizes: list[int],
        seed: int = 0,
        timeout: float | None = None,
    ) -> dict:
        """Begin to read into zeros, or to write known bytes."""
        arrays = self._buffers(sizes, seed if kind == "write" else None)
        descriptors = [nc.Descriptor(array) for array in arrays]
        told = nc.RdmaMetadata.model_validate(metadata)
        if kind == "read":
            operation = self.connector.begin_read_blocking(told, descriptors, timeout=timeout)
        else:
            operation = self.connector.begin_write_blocking(descriptors, told, timeout=timeout)
        return self._keep(operation, arrays)

    def prepare(self, metadata: dict, size: int) -> dict:
        """Prepare a read."""
        self.prepared_array = np.zeros(size, np.uint8)
        self.prepared = self.connector.prepare_read_blocking(
            nc.RdmaMetadata.model_validate(metadata), nc.Descriptor(self.prepared_array)
        )
        return {}

    def transfer(self) -> dict:
        """Make the prepared read; tell what has arrived, and forget it."""
        self.prepared_array[:] = 0
        self.prepared.transfer_blocking(10)
        return {"digest": digest(self.prepared_array)}

    def _keep(self, operation: nc.AbstractOperation, arrays: list[np.ndarray]) -> dict:
        self.count += 1
        self.operations[self.count] = operation
        self.arrays[self.count] = arrays
        return {"id": self.count}

    def wait(self, number: int, timeout: float = 10) -> dict:
        """Wait for an operation."""
        self.operations[number].wait_for_completion_blocking(timeout)
        return {}

    def status(self, number: int) -> dict:
        """Tell an operation's status."""
        return {"status": str(self.operations[number].status)}

    def digests(self, number: int) -> dict:
        """Tell the SHA-256 of each buffer."""
        return {"digests": [self._digest(array) for array in self.arrays[number]]}

    def refill(self, number: int, seed: int) -> dict:
        """Fill an operation's buffers with other bytes."""
        for i, array in enumerate(self.arrays[number]):
            array[:] = content(seed + i, array.size)
        return {}

    def cancel(self, number: int) -> dict:
        """Cancel an operation."""
        self.operations[number].cancel()
        return {}

    def outcomes(self, numbers: list[int], abandoned: list[int], timeout: float = 20) -> dict:
        """Cancel some operations, wait for all, and tell the status and SHA-256 of each."""
        told = []
        for number in abandoned:
            self.operations[number].cancel()
        for number in numbers:
            operation = self.operations.pop(number)
            arrays = self.arrays.pop(number)
            with contextlib.suppress(nc.NixlConnectError):
                operation.wait_for_completion_blocking(timeout)
            told.append((str(operation.status), self._digest(np.concatenate(arrays))))
        return {"outcomes": told}

    def abandon(self, numbers: list[int]) -> dict:
        """Cancel operations."""
        for number in numbers:
            self.operations[number].cancel()
        return {}

    def drop(self, number: int) -> dict:
        """Drop an operation and its buffers, without releasing it."""
        del self.operations[number], self.arrays[number]
        return {}

    def held(self) -> dict:
        """Tell what the connector holds, as nobody asks for it."""
        return held(self.connector)

    def stats(self) -> dict:
        """Tell the connector's statistics."""
        return {"stats": self.connector.stats()}

    def peers(self) -> dict:
        """Report the connector's peers."""
        return {"peers": [report._asdict() for report in self.connector.peers()]}

    def reports(self) -> dict:
        """Report the operations that have not ended."""
        return {"reports": [report._asdict() for report in self.connector.operations()]}

    def misbehave(
        self, call: str, action: str, value: int = 0, skip: int = 0, count: int = 1
    ) -> dict:
        """Add a rule: what a call of NIXL does, from the one after `skip` on, so many times."""
        library = ctypes.CDLL(os.environ["NIXL_CONNECT_LIBRARY"])
        number = ctypes.c_long
        if library.scripted_rule(
            call.encode(), number(skip), number(count), action.encode(), value
        ):
            raise ValueError(f"no such rule: {call} {action}")
        return {}

    def behave(self) -> dict:
        """Drop all rules, and let what is held back go on."""
        library = ctypes.CDLL(os.environ["NIXL_CONNECT_LIBRARY"])
        library.scripted_clear()
        library.scripted_release()
        return {}

    def calls(self, call: str) -> dict:
        """Tell how often NIXL was called so."""
        library = ctypes.CDLL(os.environ["NIXL_CONNECT_LIBRARY"])
        library.scripted_calls.restype = ctypes.c_long
        return {"count": library.scripted_calls(call.encode())}

    def close(self) -> dict:
        """Close the connector."""
        self.connector.close_blocking()
        return {}


def main(peer: Peer) -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Peer())
