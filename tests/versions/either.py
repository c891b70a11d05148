"""One side of an operation, for any version of this library: see between.py.

Requests and answers are JSON, one to a line, on standard input and output.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np

import nixl_connect as nc


def arrays_of(sizes: list[int], seed: int, full: bool) -> list[Any]:
    """Return arrays whose bytes follow from the seed, or are zeros."""
    rng = np.random.default_rng(seed)
    if not full:
        return [np.zeros(size, np.uint8) for size in sizes]
    return [rng.integers(0, 256, size, np.uint8) for size in sizes]


def ended(operation: Any, arrays: list[Any]) -> dict[str, str]:
    """Wait for the end, and tell what it is, and of which bytes."""
    error = ""
    try:
        operation.wait_for_completion_blocking(30)
    except nc.NixlConnectError as failure:
        error = type(failure).__name__
    digest = hashlib.sha256(b"".join(arrays)).hexdigest()
    return {"status": str(operation.status), "error": error, "digest": digest}


def main() -> None:
    """Serve until standard input ends."""

    def say(what: Any) -> None:
        print(json.dumps(what), flush=True)

    with nc.Connector() as connector:
        with connector.create_readable_blocking(nc.Descriptor(b"to open it")):
            loaded = connector.stats()["library"]
        say({"library": loaded["path"], "nixl": loaded["version"], "package": nc.__file__})
        for line in sys.stdin:
            asked = json.loads(line)
            offers, reading = asked["do"] == "offer", asked["kind"] == "read"
            arrays = arrays_of(asked["sizes"], asked["seed"], offers == reading)
            local = [nc.Descriptor(array) for array in arrays]
            if offers:
                make = connector.create_readable_blocking
                if not reading:
                    make = connector.create_writable_blocking
                with make(local) as offer:
                    say(offer.metadata().model_dump())
                    say(ended(offer, arrays))
                continue
            told = nc.RdmaMetadata.model_validate(asked["metadata"])
            if reading:
                operation: Any = connector.begin_read_blocking(told, local)
            else:
                operation = connector.begin_write_blocking(local, told)
            if asked["cancelled"]:
                operation.cancel()
            say(ended(operation, arrays))


if __name__ == "__main__":
    main()
