"""Feed mutated metadata to all that parses it, and tell what came of it. Run by test_hostile.py.

    python hostile.py COUNT SEED

Prints, as JSON: how many messages there were, how many passed for metadata, the errors by kind, the
longest time that one took (seconds), the longest text of an error, and how much the process grew
(bytes). Anything but an error of the package ends it with a traceback. Nothing reaches NIXL.
"""

import base64
import copy
import json
import random
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

import nixl_connect as nc
from nixl_connect import arrays
from nixl_connect._native.packing import Regions
from nixl_connect.arrays.fetching import Fetching
from nixl_connect.memory.tables import FEW, RowDescriptors
from nixl_connect.wire.codec import parse_nixl_metadata, read_nixl_metadata

LIMIT = 1 << 16
EXTREMES = [0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
VALUES = [
    *EXTREMES,
    *(
        -1,
        -(2**63),
        10**400,
        10**4000,
        0.5,
        1e308,
        -0.0,
        True,
        None,
        "",
        "0",
        "cpu",
        "cuda:0",
        "cuda:-1",
    ),
    *("cuda:99999999999999999999", "\x00", "\ud800", "é" * 50, [], {}, [[]] * 20, {"ptr": 1}),
    *("b64:", "b64:====", "b64:" + "A" * 5000, "00", "zz", "0" * 5000, [None], [1, "2", {}]),
]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return something that is nearly the same bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 8, 100)))
        elif kind == 3:
            del changed[at : at + rng.choice((1, 2, 8, 100))]
        elif kind == 4:
            changed[at:at] = changed[at : at + rng.choice((1, 9, 60, 400))]
        elif kind == 5:
            del changed[at:]
        elif kind == 6 and len(changed) >= 8:
            at = rng.randrange(len(changed) - 7)
            changed[at : at + 8] = min(rng.choice(EXTREMES), 2**64 - 1).to_bytes(8, "little")
        elif kind == 7:
            other = rng.randrange(len(changed) + 1)
            size = rng.choice((1, 8, 33))
            changed[at : at + size] = changed[other : other + size]
    return bytes(changed)


def strange(rng: random.Random) -> object:
    """Return something that may stand in JSON, of its own: it may be changed again."""
    return copy.deepcopy(rng.choice(VALUES))


def mutate_fields(rng: random.Random, fields: dict) -> dict:
    """Return something that is nearly the same JSON object."""
    changed = json.loads(json.dumps(fields))
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.randrange(6)
        name = rng.choice([*fields, "other"])
        items = changed.get("descriptors")
        item = rng.choice(items) if isinstance(items, list) and items else {}
        if kind == 0:
            changed[name] = strange(rng)
        elif kind == 1:
            changed.pop(name, None)
        elif kind == 2 and isinstance(item, dict):
            item[rng.choice(["device", "ptr", "size", "other"])] = strange(rng)
        elif kind == 3 and isinstance(changed.get("descriptors"), list):
            changed["descriptors"] = changed["descriptors"] * rng.choice((0, 2, 20))
        elif kind == 4 and isinstance(changed.get(name), str):
            text = mutate(rng, changed[name].encode("utf-8", "surrogatepass"))
            changed[name] = text.decode("latin-1")
        elif kind == 5 and isinstance(changed.get("descriptors"), list):
            changed["descriptors"].append(strange(rng))
    return changed


TYPES = [
    *("float32", "bfloat16", "object", "O", "<f4", ">f16", "|V0", "|V999999999", "<U99999999"),
    *("i4,i4", "(3,)f4", "f4, (2,)i8", "<M8[s]", "<M8[xx]", "datetime64[s]", "\u0000", "é"),
    *([["x", "<i4"]], [["x", "<i4", [2, 3]], ["", "|V3"]], [["x", [["y", "|O"]]]]),
    *([["x", "|b1", [1 << 40]]], [["x", "<i4"], ["x", "<i4"]], [["x", []]], [["", "|V1"]]),
    [["x", [["x", [["x", [["x", [["x", [["x", [["x", [["x", [["x", "<i4"]]]]]]]]]]]]]]]]]],
    [[f"x{i}", "|b1"] for i in range(5000)],
    [["x", "<i8", [0, 1 << 29, 1 << 29, 1 << 29]]],
]


def mutate_arrays(rng: random.Random, fields: dict) -> dict:
    """Return something that is nearly the same message of arrays."""
    changed = json.loads(json.dumps(fields))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.randrange(8)
        entries = changed.get("arrays")
        entry = rng.choice(entries) if isinstance(entries, list) and entries else None
        if kind == 0:
            changed[rng.choice([*fields, "other"])] = strange(rng)
        elif kind == 1:
            changed["operation"] = mutate_fields(rng, fields["operation"])
        elif kind == 2 and isinstance(entries, list):
            # More than the limit, and few enough that the message itself is no matter of megabytes.
            changed["arrays"] = (entries * rng.choice((0, 2, 20)))[:60]
        elif kind == 3 and isinstance(entries, list):
            entries.append(strange(rng))
        elif isinstance(entry, list) and len(entry) == 6:
            at = rng.randrange(6)
            entry[at] = strange(rng)
            if at == 0:
                entry[0] = rng.choice(([], ["a", "b"], ["a"], ["0"], ["x" * 5000], ["n"] * 50))
            elif at == 1:
                entry[1] = copy.deepcopy(rng.choice(TYPES))
            elif at == 2:
                entry[2] = [
                    rng.choice((0, 1, 2, 3, 7, *EXTREMES, -1))
                    for _ in range(rng.choice((0, 1, 2, 3, 40)))
                ]
            elif rng.random() < 0.5:
                entry[at] = rng.choice(("C", "F", 0, 1, 2, 3, *EXTREMES))
    return changed


def bomb(rng: random.Random) -> bytes:
    """Return a stream that is small and says that it is large."""
    deflater = zlib.compressobj(9)
    stream = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(rng.choice((1, 4, 16))))
    return stream + deflater.flush()


class Target:
    """All that reads what a peer sends, short of NIXL."""

    def __init__(self) -> None:
        self.connector = nc.Connector("hostile", max_metadata_bytes=LIMIT, max_descriptors=50)
        self.connection = self.connector._open()
        self.buffer = bytearray(b"0123456789abcdef" * 4)
        self.operation = self.connector.create_readable_blocking(nc.Descriptor(self.buffer))
        self.metadata = self.operation.metadata()
        self.fields = self.metadata.model_dump()
        self.text = self.metadata.model_dump_json().encode()
        self.packed = self.metadata.to_bytes()
        self.blocks = self.connector.create_readable_blocking(
            [nc.Blocks(self.buffer, 16, [3, 0]), nc.Descriptor(self.buffer)]
        )
        self.packed_blocks = self.blocks.metadata().to_bytes()
        # So many that they are rows.
        many = nc.RdmaMetadata(
            descriptors=RowDescriptors("cpu", Regions([(4096 + i, 64, 0) for i in range(FEW + 5)])),
            nixl_metadata=self.metadata.nixl_metadata,
            notification_key=self.metadata.notification_key,
            operation_kind=1,
        )
        self.text_of_many = many.model_dump_json().encode()
        self.packed_many = many.to_bytes()
        self.blob = read_nixl_metadata(self.metadata.nixl_metadata, LIMIT)[0]
        self.stream = zlib.compress(self.blob)
        numbers = np.arange(12, dtype=np.int16)
        self.offer = arrays.offer_blocking(
            self.connector,
            {
                "a": {"b": numbers.reshape(3, 4).T, "c": numbers[5:], "d": np.empty((0, 2))},
                "e": np.zeros(3, [("x", ">i4"), ("y", "<f8", (2,))]),
            },
        )
        self.arrays = json.loads(self.offer.message())
        self.text_of_arrays = self.offer.message().encode()
        self.packed_arrays = self.offer.message_bytes()
        self.into = nc.Descriptor(bytearray(len(self.buffer)))

    def close(self) -> None:
        """Close the connector."""
        self.offer.close()
        self.connector.close_blocking()

    def begin(self, metadata: nc.RdmaMetadata) -> None:
        """Check everything that a read checks before it begins."""
        nc.ReadOperation(self.connection, metadata, self.into, _begin=False)

    def fetch(self, message: str | bytes) -> None:
        """Do everything that a fetch does before it begins, memory and all."""
        plan = Fetching(
            self.connector,
            message,
            into=None,
            pool=None,
            device=None,
            only=None,
            max_bytes=LIMIT,
            max_arrays=50,
        )
        plan.lay(None)
        plan.result()

    def message_of_arrays(self, rng: random.Random) -> None:
        """Send one message of named arrays."""
        kind = rng.randrange(4)
        if kind == 0:
            self.fetch(mutate(rng, self.text_of_arrays))
        elif kind == 1:
            self.fetch(mutate(rng, self.packed_arrays))
        else:
            self.fetch(json.dumps(mutate_arrays(rng, self.arrays)))

    def message(self, rng: random.Random) -> None:
        """Send one message."""
        kind = rng.randrange(12)
        if kind > 7:
            self.message_of_arrays(rng)
        elif kind == 7:
            nested = rng.choice((b"[", b'{"descriptors":', b'{"other":[')) * rng.choice((3, 5000))
            at = rng.randrange(len(self.text))
            text = self.text[:at] + nested + self.text[at:] if rng.random() < 0.5 else nested
            self.begin(nc.RdmaMetadata.model_validate_json(text))
        elif kind == 0:
            text = rng.choice((self.text, self.text_of_many))
            self.begin(nc.RdmaMetadata.model_validate_json(mutate(rng, text)))
        elif kind == 1:
            text = json.dumps(mutate_fields(rng, self.fields))
            self.begin(nc.RdmaMetadata.model_validate_json(text))
        elif kind == 2:
            self.begin(nc.RdmaMetadata.model_validate(mutate_fields(rng, self.fields)))
        elif kind == 3:
            packed = rng.choice((self.packed, self.packed_blocks, self.packed_many))
            self.begin(nc.RdmaMetadata.from_bytes(mutate(rng, packed)))
        elif kind == 4:
            stream = bomb(rng) if rng.random() < 0.002 else mutate(rng, self.stream)
            text = (
                stream.hex() if rng.random() < 0.5 else "b64:" + base64.b64encode(stream).decode()
            )
            read_nixl_metadata(text, LIMIT)
        elif kind == 5:
            # With a checksum that holds: the strict parser is all that stands before NIXL.
            text = "b64:" + base64.b64encode(zlib.compress(mutate(rng, self.blob))).decode()
            read_nixl_metadata(text, LIMIT)
        else:
            parse_nixl_metadata(mutate(rng, self.blob))


def peak() -> int:
    """Return the most bytes of memory that the process has had since it last began to count.

    Not `ru_maxrss`, which is never less than the parent had when it started this process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(count: int, seed: int) -> None:
    """Send so many messages."""
    rng = random.Random(seed)
    target = Target()
    errors: Counter[str] = Counter()
    longest = 0.0
    text = before = 0
    for number in range(count):
        if number == min(2000, count // 2):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
            before = peak()
        began = time.perf_counter()
        try:
            target.message(rng)
        except nc.NixlConnectError as error:
            errors[type(error).__name__] += 1
            text = max(text, len(str(error)))
        longest = max(longest, time.perf_counter() - began)
    grown = peak() - before
    # What was meant for NIXL has left no trace.
    target.begin(target.metadata)
    target.fetch(target.text_of_arrays)
    target.close()
    print(
        json.dumps(
            {
                "messages": count,
                "passed": count - sum(errors.values()),
                "errors": dict(errors),
                "longest": longest,
                "text": text,
                "grown": grown,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
