"""One process of a pair: makes operations of this library, or of the reference, on command.

``python side.py nixl_connect`` or ``python side.py dynamo``, each in an environment that has it.
Commands and answers are JSON, one to a line. It uses what both have, and nothing else: what it does
for the one is what a program of the other does with its import line changed.
"""

import asyncio
import contextlib
import gc
import hashlib
import importlib
import json
import logging
import sys
import traceback

import numpy as np

DEADLINE = 60.0


def library(name):
    """Import one of the two."""
    if name == "dynamo":
        # The package `nixl` picks the build that fits torch's CUDA: here it has to be the one that
        # is installed.
        for part in ("", "._api", "._bindings"):
            sys.modules[f"nixl{part}"] = importlib.import_module(f"nixl_cu12{part}")
        logging.disable(logging.WARNING)  # of metadata that compression makes longer
        return importlib.import_module("dynamo.nixl_connect")
    return importlib.import_module("nixl_connect")


def content(seed, size):
    """Return `size` bytes that follow from `seed`, in memory that can be received in."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


class Side:
    """Carries out commands; each public method is one."""

    def __init__(self, name):
        self._nc = library(name)
        self._connector = self._nc.Connector()
        self._operations = {}
        self._arrays = {}
        self._kept = []
        self._count = 0

    def _descriptors(self, arrays):
        # An array with its device is what both take, the reference nothing else of NumPy's.
        made = [self._nc.Descriptor((array, "cpu")) for array in arrays]
        return made[0] if len(made) == 1 else made

    def _arrays_of(self, sizes, seed):
        if seed is None:
            return [np.zeros(size, np.uint8) for size in sizes]
        return [content(seed + i, size) for i, size in enumerate(sizes)]

    async def passive(self, kind, sizes, seed=None, hex_encode=False, times=1, **options):
        """Make operations, readable of known bytes or writable, and tell their metadata."""
        made = []
        for i in range(times):
            arrays = self._arrays_of(sizes, None if seed is None else seed + i)
            create = getattr(self._connector, f"create_{kind}")
            operation = await create(self._descriptors(arrays), **options)
            self._count += 1
            self._operations[self._count] = operation
            self._arrays[self._count] = arrays
            metadata = operation.metadata(hex_encode=hex_encode).model_dump_json()
            made.append({"id": self._count, "metadata": metadata})
        return made

    async def _active(self, kind, metadata, sizes, seed, keep):
        arrays = self._arrays_of(sizes, seed)
        told = self._nc.RdmaMetadata.model_validate_json(metadata)
        if kind == "read":
            begun = self._connector.begin_read(told, self._descriptors(arrays))
        else:
            begun = self._connector.begin_write(self._descriptors(arrays), told)
        operation = await begun
        with operation:
            await asyncio.wait_for(operation.wait_for_completion(), DEADLINE)
            assert str(operation.status) == "DONE", operation
            if keep:
                # The reference drops the connection with the last operation that is left of it.
                self._kept.append(operation.remote)
            if kind == "read":
                results = operation.results()
                assert [item.size for item in results] == sizes, results
        return [hashlib.sha256(array).hexdigest() for array in arrays]

    async def active(self, kind, metadata, sizes, seed=None, keep=False):
        """Read into zeros, or write known bytes; several at once if there are more metadata."""
        work = [
            self._active(kind, text, sizes, None if seed is None else seed + i, keep)
            for i, text in enumerate(metadata)
        ]
        return await asyncio.gather(*work)

    async def finish(self, number):
        """Wait for a passive operation; tell what is in its memory."""
        operation, arrays = self._operations.pop(number), self._arrays.pop(number)
        with operation:
            await asyncio.wait_for(operation.wait_for_completion(), DEADLINE)
            assert str(operation.status) == "DONE", operation
        return [hashlib.sha256(array).hexdigest() for array in arrays]

    async def close(self):
        """Let go of everything."""
        self._kept.clear()
        gc.collect()
        if hasattr(self._connector, "close"):
            await self._connector.close()


async def main(name):
    side = Side(name)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        try:
            answer = {"result": await getattr(side, request.pop("do"))(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
