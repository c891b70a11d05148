"""Clients of the next dynamo.nixl_connect: one process of them, with either library under it.

    python clients.py LIBRARY ROLE

LIBRARY is ``nixl_connect`` or ``dynamo``. Commands and answers are JSON, one to a line. Roles:
``frontend`` has decoded media in an agent of NIXL's own Python API, as the frontend in Rust has;
``sender`` and ``receiver`` are the two ends of keyword arguments for models; ``loaders`` load
images, audio and video from a frontend.
"""

import asyncio
import base64
import hashlib
import importlib
import json
import logging
import sys
import zlib

import numpy as np

for part in ("", "._api", "._bindings"):
    sys.modules[f"nixl{part}"] = importlib.import_module(f"nixl_cu12{part}")

DEADLINE = 60.0
MEDIA = {
    "image": (np.uint8, (48, 64, 3)),
    "audio": (np.float32, (16_000, 1)),
    "video": (np.uint8, (8, 24, 32, 3)),
}
VIDEO = {"frames_indices": list(range(8)), "fps": 24.0, "total_num_frames": 8, "duration": 0.333}


def content(seed: int, size: int) -> bytes:
    """Return bytes that follow from a seed."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def medium(kind: str) -> np.ndarray:
    """Return what a frontend has decoded."""
    dtype, shape = MEDIA[kind]
    drawn = np.random.default_rng(len(kind)).integers(0, 200, shape)
    return drawn.astype(dtype)


def digest(data) -> str:
    """Return what says whether bytes are the same."""
    return hashlib.sha256(data).hexdigest()


class Frontend:
    """Media in host memory, registered with an agent that is not of this library."""

    def __init__(self) -> None:
        from nixl_cu12 import _api as nixl

        self._agent = nixl.nixl_agent("frontend", nixl.nixl_agent_config(backends=["UCX"]))
        self._media = {kind: medium(kind) for kind in MEDIA}
        for array in self._media.values():
            self._agent.register_memory([(array.ctypes.data, array.nbytes, 0, "")], "DRAM")

    async def media(self) -> dict:
        """Return what says where each is, as it comes with a request."""
        told = zlib.compress(self._agent.get_agent_metadata())
        return {
            kind: {
                "nixl_metadata": "b64:" + base64.b64encode(told).decode(),
                "nixl_descriptor": {
                    "addr": array.ctypes.data,
                    "size": array.nbytes,
                    "mem_type": "Dram",
                    "device_id": 0,
                },
                "shape": list(array.shape),
                "dtype": array.dtype.name,
                "metadata": VIDEO if kind == "video" else {"sample_rate": 8000},
            }
            for kind, array in self._media.items()
        }


class Sender:
    """Keyword arguments, offered to a backend."""

    def __init__(self) -> None:
        from dynamo.common.multimodal import mm_kwargs_transfer

        self._sender = mm_kwargs_transfer.MmKwargsNixlSender()
        self._items: list = []

    async def send(self, sizes: list[int]) -> dict:
        """Offer bytes of each size; return what goes along with the request."""
        encoded = []
        for number, size in enumerate(sizes):
            spec, item = await self._sender._encode_item(number, content(number, size))
            encoded.append(spec)
            self._items.append(item)
        return self._sender._assemble_extra_args("image", encoded, ["hash"] * len(sizes))

    async def cleanup(self) -> list[str]:
        """Wait until all have been read, and let go of them; return how they ended."""
        await self._sender.cleanup(self._items)
        ended = [str(item.status) for item in self._items]
        self._items = []
        return ended


class Receiver:
    """Keyword arguments, read into a pool of descriptors."""

    def __init__(self) -> None:
        from dynamo.common.multimodal import mm_kwargs_transfer

        self._metadata = mm_kwargs_transfer.MmKwargsTransferMetadata
        self._receiver = mm_kwargs_transfer.MmKwargsNixlReceiver(
            max_item_bytes=1 << 20, pool_size=2
        )

    async def receive(self, extra: dict) -> list[str]:
        """Read all; return their digests."""
        metadata = self._metadata.model_validate(extra["mm_kwargs_nixl"])
        received = await self._receiver.receive(metadata)
        return [digest(item) for item in received["__pickled_kwargs_item__"]]


class Loaders:
    """Images, audio and video that a frontend has decoded."""

    def __init__(self) -> None:
        from dynamo.common.multimodal import audio_loader, image_loader, video_loader

        # Each opens its connector here, on an event loop of its own that ends at once.
        self._image = image_loader.ImageLoader(enable_frontend_decoding=True)
        self._audio = audio_loader.AudioLoader(enable_frontend_decoding=True)
        self._video = video_loader.VideoLoader(enable_frontend_decoding=True)

    async def load(self, media: dict) -> dict:
        """Load one of each, several times at once; return whether all are as they were."""
        items = {kind: [{"Decoded": media[kind]}] * 3 for kind in media}
        images, sounds, videos = await asyncio.gather(
            self._image.load_image_batch(items["image"]),
            self._audio.load_audio_batch(items["audio"]),
            self._video.load_video_batch(items["video"]),
        )
        return {
            "image": [bool((np.asarray(image) == medium("image")).all()) for image in images],
            "audio": [
                bool((sound == medium("audio")).all() and rate == 8000) for sound, rate in sounds
            ],
            "video": [
                bool((frames == medium("video")).all() and told["fps"] == 24.0)
                for frames, told in videos
            ],
        }


async def main(library: str, role: str) -> None:
    """Carry out commands until there are no more."""
    if library == "nixl_connect":
        import dynamo

        import nixl_connect

        dynamo.nixl_connect = sys.modules["dynamo.nixl_connect"] = nixl_connect
    logging.disable(logging.WARNING)
    kinds = {"frontend": Frontend, "sender": Sender, "receiver": Receiver, "loaders": Loaders}
    client = kinds[role]()
    print(json.dumps({"result": "ready"}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        call = getattr(client, command.pop("do"))
        try:
            reply = {"result": await asyncio.wait_for(call(**command), DEADLINE)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
