"""How types of items are named in messages, and which ones may come from there.

A type is its NumPy or ml_dtypes name where it has one that says all (``"float32"``,
``"bfloat16"``), else NumPy's string with its byte order (``">f4"``, ``"<M8[ns]"``, ``"|S5"``); a
structured one is a list of ``[name, type]`` or ``[name, type, shape]``, with ``["", "|V3"]`` where
bytes are left out, as in ``numpy.dtype.descr``.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, TypeAlias

import numpy as np

from nixl_connect.errors import ArgumentError, ArgumentTypeError, LibraryError

Named: TypeAlias = "str | list[Any]"
"""A type, as messages name it."""

_PLAIN: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
_NUMBERED: dict[int, str] = {np.dtype(code).num: np.dtype(code).name for code in "?bhilqBHILQefdFD"}
"""Of NumPy's own types in this machine's byte order: by their numbers, which is quick."""
_OF_ML_DTYPES: dict[str, int] = {
    "bfloat16": 2,
    **dict.fromkeys(
        (
            *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"),
            *("float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
            *("float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"),
            *("int2", "int4", "uint2", "uint4"),
        ),
        1,
    ),
}
"""Bytes of an item: those of less than eight bits have a byte each in NumPy."""
_SIZES: dict[str, int] = _OF_ML_DTYPES | {name: kind.itemsize for name, kind in _PLAIN.items()}
_OF_SAFETENSORS: dict[str, str] = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
# Byte order, kind, bytes of an item (characters for U), unit of time. No g and G (long double):
# their size says nothing about their form, which differs between machines.
_STRING = re.compile(
    r"(?:[<>](?:[iu][248]|f[248]|c(?:8|16)|U[1-9][0-9]{0,8}|[mM]8(?:\[[0-9]{0,9}[A-Za-z]{1,2}\])?)"
    r"|\|(?:b1|[iu]1|[SV][1-9][0-9]{0,8}))",
    re.ASCII,
)
_MOST_FIELDS = 4096
_DEEPEST = 8
_LARGEST = 1 << 30
"""Bytes of an item."""


@functools.lru_cache(maxsize=256)
def _encoded(dtype: np.dtype[Any]) -> Named:
    if dtype.names is not None:
        return _fields(dtype)
    name = dtype.name
    if _PLAIN.get(name) == dtype:
        return name
    if name in _OF_ML_DTYPES and dtype.type.__module__.partition(".")[0] == "ml_dtypes":
        if _of_ml_dtypes(name) != dtype:
            raise ArgumentError(f"items of {name} in another byte order cannot be transferred")
        return name
    if dtype.hasobject:
        raise ArgumentError(
            "an array of Python objects cannot be transferred: give it a type of numbers, or "
            "serialize it"
        )
    if not dtype.itemsize or _STRING.fullmatch(dtype.str) is None or np.dtype(dtype.str) != dtype:
        raise ArgumentError(
            f"items of type {dtype} cannot be transferred: what they are differs between machines, "
            "or cannot be said; convert them with astype(), or view them as bytes"
        )
    return dtype.str


def _fields(dtype: np.dtype[Any]) -> list[Any]:
    """Return the fields of a structured type, in the order of their bytes."""
    assert dtype.fields is not None
    fields: list[Any] = []
    end = 0
    for name, (kind, offset, *title) in sorted(dtype.fields.items(), key=lambda item: item[1][1]):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ArgumentError(f"the name of a field is no text: {name!r:.80}") from None
        if title:
            raise ArgumentError(f"the structured type {dtype} has titles, which cannot be sent")
        if offset < end:
            raise ArgumentError(f"fields of the structured type {dtype} overlap")
        if offset > end:
            fields.append(["", f"|V{offset - end}"])
        end = offset + kind.itemsize
        base, shape = kind.subdtype or (kind, ())
        fields.append([name, _encoded(base), *([list(shape)] if shape else [])])
    if dtype.itemsize > end:
        fields.append(["", f"|V{dtype.itemsize - end}"])
    if not end or list(dtype.names or ()) != [field[0] for field in fields if field[0]]:
        raise ArgumentError(f"the structured type {dtype} is not in the order of its bytes")
    return fields


def encoded(dtype: Any) -> Named:
    """Return how messages name the type of an array, of NumPy's or torch's.

    Raises
    ------
    ArgumentError
        It cannot be sent: Python objects, or items that differ between machines.
    """
    if isinstance(dtype, np.dtype):
        name = _NUMBERED.get(dtype.num)
        return name if name is not None and dtype.isnative else _encoded(dtype)
    name = str(dtype).removeprefix("torch.")
    if name in _PLAIN or name in _OF_ML_DTYPES:
        return name
    raise ArgumentError(f"items of type {dtype!r:.80} cannot be transferred")


def decoded(named: Named) -> np.dtype[Any]:
    """Return the NumPy type that a message names. Trusts nothing about it.

    Raises
    ------
    ArgumentError
        There is no such type, or it exceeds a limit.
    LibraryError
        It is one of ml_dtypes, which is missing.
    """
    if type(named) is str and named in _PLAIN:
        return _PLAIN[named]
    return _decoded(named, [_MOST_FIELDS], 0)


def _decoded(named: Any, left: list[int], depth: int) -> np.dtype[Any]:
    if isinstance(named, str):
        known = _PLAIN.get(named)
        if known is not None:
            return known
        if named in _OF_ML_DTYPES:
            return _of_ml_dtypes(named)
        if _STRING.fullmatch(named) is not None:
            try:
                return np.dtype(named)
            except (TypeError, ValueError):  # of no unit of time, or too large
                pass
    elif isinstance(named, list) and named and depth < _DEEPEST:
        left[0] -= len(named)
        if left[0] >= 0:
            return _structured([_field(field, left, depth) for field in named])
    raise ArgumentError(f"no type of items: {_shown(named)}")


def _shown(value: Any) -> str:
    """Return what a peer wrote, for an error's text. What is nested may be so without end."""
    return f"{value!r:.80}" if isinstance(value, str) else f"a {type(value).__name__}"


def _field(field: Any, left: list[int], depth: int) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    if (
        not isinstance(field, list)
        or not 2 <= len(field) <= 3
        or not isinstance(field[0], str)
        or len(field[0]) > 256
    ):
        raise ArgumentError(f"no field of a type: {_shown(field)}")
    shape = field[2] if len(field) == 3 else []
    if (
        not isinstance(shape, list)
        or len(shape) > 32
        or not all(type(extent) is int and 0 <= extent <= _LARGEST for extent in shape)
    ):
        raise ArgumentError(f"no shape of the field {field[0]!r:.80}")
    kind = _decoded(field[1], left, depth + 1)
    # NumPy multiplies the other extents too where one is 0.
    if math.prod(extent or 1 for extent in shape) * kind.itemsize > _LARGEST:
        raise ArgumentError(f"a field of {field[0]!r:.80} is too large")
    return field[0], kind, tuple(shape)


def _structured(fields: list[tuple[str, np.dtype[Any], tuple[int, ...]]]) -> np.dtype[Any]:
    names, kinds, offsets = [], [], []
    end = 0
    for name, kind, shape in fields:
        if name:
            names.append(name)
            kinds.append((kind, shape) if shape else kind)
            offsets.append(end)
        end += math.prod(shape) * kind.itemsize
    if not 0 < end <= _LARGEST or not names or len(set(names)) != len(names):
        raise ArgumentError("a structured type is empty, too large, or has a name twice")
    try:
        return np.dtype({"names": names, "formats": kinds, "offsets": offsets, "itemsize": end})
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"no structured type: {error}") from None


def _of_ml_dtypes(name: str) -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError:
        raise LibraryError(
            f"arrays of {name} need ml_dtypes (pip install ml_dtypes), or arrays of torch or JAX "
            "to receive them in"
        ) from None
    kind = getattr(ml_dtypes, name, None)
    if kind is None:
        raise LibraryError(f"arrays of {name} need a newer ml_dtypes")
    made: np.dtype[Any] = np.dtype(kind)
    return made


def itemsize(named: Named) -> int:
    """Return the bytes of an item. Raises as `decoded`, but needs no ml_dtypes for its types."""
    if type(named) is str and named in _SIZES:
        return _SIZES[named]
    return decoded(named).itemsize


def specified(kind: Any) -> Named:
    """Return how messages name the type that a program asks for.

    Parameters
    ----------
    kind : object
        What NumPy takes for a type; a type of torch; or a name, also as ml_dtypes and safetensors
        have it. Of names that mean two things (``"U16"`` is text to NumPy) it is safetensors'.
    """
    if isinstance(kind, str):
        name = _OF_SAFETENSORS.get(kind, kind)
        if name in _PLAIN or name in _OF_ML_DTYPES:
            return name
    elif str(kind).startswith("torch."):
        return encoded(kind)
    try:
        if kind is None:
            raise TypeError  # to NumPy it is float64
        dtype = np.dtype(kind)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"no type of items: {kind!r:.80}") from None
    return encoded(dtype)
