"""Arrays of many kinds, that both sides of a test know."""

import numpy as np


def sampled(seed: int) -> dict:
    """Return arrays of many types, shapes and orders, nested, whose items follow from `seed`."""
    random = np.random.default_rng(seed)
    fields = np.dtype({"names": ["x", "y"], "formats": ["<i4", (">f8", (2,))], "itemsize": 24})
    records = np.zeros(5, fields)
    records["x"], records["y"] = random.integers(0, 99, 5), random.random((5, 2))
    whole = random.integers(0, 256, 4099, np.uint8)
    readonly = random.integers(0, 9, 7)
    readonly.flags.writeable = False
    return {
        "plain": random.random((3, 4, 5)),
        "layers": {
            "0": {"weight": np.asfortranarray(random.random((17, 3), np.float32))},
            "1": {"weight": random.random((2, 1)).astype(np.float16), "bias": np.array(7.5)},
        },
        "empty": np.empty((4, 0, 2), np.int16),
        "big": random.integers(-5, 5, 11).astype(">i4"),
        "bool": random.random(9) > 0.5,
        "complex": random.random(4) + 1j,
        "records": records,
        "text": np.array(["ä", "abc"]),
        "bytes": np.array([b"x", b"yz"]),
        "raw": np.array([b"xyz"], "V3"),
        "time": np.array(["2026-11-29", "NaT"], "<M8[us]"),
        "span": np.array([5], "<m8[25s]"),
        "readonly": readonly,
        # Views of one array: side by side, apart, and overlapping.
        "views": {
            "a": whole[:8].view(np.float64),
            "b": whole[8:9],
            "c": whole[9:1009],
            "d": whole[2000:4000],
            "e": whole[3000:4099],
        },
    }


def flat(arrays: dict, above: str = "") -> dict:
    """Return nested arrays by their whole names."""
    found = {}
    for name, value in arrays.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found


def told(arrays: dict) -> dict[str, list]:
    """Return what can be compared in JSON: type, shape, order and bytes of each array."""
    return {
        name: [
            str(array.dtype),
            list(array.shape),
            bool(array.flags.c_contiguous),
            array.tobytes("A").hex(),
        ]
        for name, array in flat(arrays).items()
    }
