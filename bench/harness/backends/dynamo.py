"""Dynamo's `dynamo.nixl_connect` as its documentation uses it, within asyncio; metadata as JSON."""

from __future__ import annotations

import importlib
import logging
import sys
from importlib.metadata import version
from typing import Any

import torch

# The package `nixl` does the same, with the build that fits torch's CUDA: here it has to be the one
# that the other subjects run on.
for name in ("", "._api", "._bindings"):
    sys.modules[f"nixl{name}"] = importlib.import_module(f"nixl_cu12{name}")
logging.getLogger("nixl").setLevel(logging.WARNING)
# It warns of a CuPy that is not there, and of metadata that compression makes longer.
logging.getLogger("dynamo.nixl_connect").setLevel(logging.ERROR)

from dynamo.nixl_connect import Connector, Descriptor, RdmaMetadata  # noqa: E402

from harness.backends.base import Base, Bytes  # noqa: E402


class Backend(Base):
    """Dynamo's library, on tensors that share the buffers' memory."""

    version = (
        f"dynamo.nixl_connect {version('ai-dynamo-runtime')}, "
        f"nixl {version('nixl-cu12')}, torch {torch.__version__}"
    )

    async def open(self, name: str) -> None:
        """Make a connector, and its connection."""
        self._connector = Connector(name)
        # There is no public way to the connection that memory is registered with; Dynamo's own
        # callers take this one.
        self._connection = await self._connector._create_connection()

    def register(self, buffer: Bytes) -> Any:
        """Register a descriptor of the whole; operations register their parts of it once more."""
        descriptor = Descriptor(torch.from_numpy(buffer))
        descriptor.register_with_connector(self._connection)
        return descriptor

    async def offer(self, buffers: list[Bytes]) -> tuple[Any, bytes]:
        """Make a readable operation."""
        operation = await self._connector.create_readable(_descriptors(buffers))
        return operation, operation.metadata().model_dump_json().encode()

    async def told(self, handle: Any) -> None:
        """Wait for it, and release it."""
        with handle:
            await handle.wait_for_completion()

    async def fetch(self, message: bytes, buffers: list[Bytes]) -> None:
        """Read."""
        metadata = RdmaMetadata.model_validate_json(message)
        with await self._connector.begin_read(metadata, _descriptors(buffers)) as operation:
            await operation.wait_for_completion()


def _descriptors(buffers: list[Bytes]) -> Descriptor | list[Descriptor]:
    descriptors = [Descriptor(torch.from_numpy(buffer)) for buffer in buffers]
    return descriptors if len(descriptors) > 1 else descriptors[0]
