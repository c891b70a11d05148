"""The arrays that a program gives: their names, shapes and types, and where their bytes are."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from nixl_connect.arrays.dtypes import Named, decoded, encoded, itemsize, specified
from nixl_connect.arrays.manifest import MOST_DIMENSIONS, MOST_NESTED, Entry, check_paths
from nixl_connect.errors import ArgumentError, ArgumentTypeError, MetadataError
from nixl_connect.memory.buffers import order_of
from nixl_connect.memory.descriptor import Descriptor

Arrays: TypeAlias = "Mapping[str, Any] | Sequence[Any]"
"""Arrays by name, where a value may be such a mapping again; or a sequence of arrays."""


class Given(msgspec.Struct, eq=False):
    """One array."""

    path: list[str]
    """Its name, one part for each nested mapping."""
    array: Any
    """The array, or a copy of it."""
    kind: Named
    """The type of its items, as messages name it."""
    shape: list[int]
    order: str
    """C, or F where it is in Fortran order alone."""
    descriptor: Descriptor | None = None
    """Its bytes, if it has any."""

    @property
    def name(self) -> str:
        """The parts of its name, joined by dots."""
        return ".".join(self.path)

    def entry(self, region: int, offset: int) -> Entry:
        """Return the array as it is told of."""
        return Entry(self.path, self.kind, self.shape, self.order, region, offset)


def collected(
    arrays: Any, what: str = "arrays", *, copy: bool = False, specs: bool = False
) -> list[Given]:
    """Return what a program gives, one by one.

    Parameters
    ----------
    arrays : mapping or sequence
        The arrays.
    what : str
        What the program calls them.
    copy : bool
        Whether to copy those that are not contiguous.
    specs : bool
        Whether there may be (shape, type), of which an array is made.

    Raises
    ------
    ArgumentTypeError
        It is neither mapping nor sequence, a name is no string, or something no array.
    ArgumentError
        There are none, or an array cannot be transferred as it is.
    """
    given: list[Given] = []
    path: list[str] = []
    walked = list(_walk(arrays, what))
    try:
        for path, array in walked:
            "".join(path).encode()
            given.append(_given(path, array, copy=copy, specs=specs))
    except UnicodeEncodeError:
        raise ArgumentError(f"{_named_in(what, path)}: the name is no text") from None
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"{_named_in(what, path)}: {error}") from None
    except ArgumentError as error:
        raise ArgumentError(f"{_named_in(what, path)}: {error}") from None
    if not given:
        raise ArgumentError(f"{what} must not be empty")
    try:
        check_paths(it.path for it in given)
    except MetadataError as error:
        raise ArgumentError(str(error)) from None
    return given


def _named_in(what: str, path: list[str]) -> str:
    return f"{what}[{'.'.join(path)!r:.80}]"


def is_sequence(arrays: Any) -> bool:
    """Whether arrays are given by their numbers."""
    return not isinstance(arrays, Mapping)


def _walk(arrays: Any, what: str) -> Iterator[tuple[list[str], Any]]:
    if isinstance(arrays, Mapping):
        return _named(arrays, what, [])
    if isinstance(arrays, (list, tuple)):
        return (([str(i)], array) for i, array in enumerate(arrays))
    raise ArgumentTypeError(
        f"{what} must be a mapping of names to arrays, or a list or tuple of arrays, "
        f"not {type(arrays).__name__}"
    )


def _named(
    arrays: Mapping[Any, Any], what: str, above: list[str]
) -> Iterator[tuple[list[str], Any]]:
    if len(above) > MOST_NESTED:
        raise ArgumentError(f"{what}: mappings are nested too deep")
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise ArgumentTypeError(
                f"{what}: a name must be a string, not {type(name).__name__}: {name!r:.80}"
            )
        if isinstance(value, Mapping):
            if not value:
                raise ArgumentError(f"{what}[{name!r:.80}] is a mapping without arrays")
            yield from _named(value, what, [*above, name])
        else:
            yield [*above, name], value


def _given(path: list[str], array: Any, *, copy: bool, specs: bool) -> Given:
    if isinstance(array, tuple) and specs:
        array = _made(array)
    if type(array) is np.ndarray and array.flags.c_contiguous:
        return _plain(path, array)
    kind, shape, strides, address = _described(array)
    item = itemsize(kind)
    size = math.prod(shape) * item
    if len(shape) > MOST_DIMENSIONS:
        raise ArgumentError(f"it has {len(shape)} dimensions, more than {MOST_DIMENSIONS}")
    order = order_of(shape, strides, item) if size and strides is not None else "C"
    if not order:
        if not copy:
            raise ArgumentError(
                f"an array of shape {tuple(shape)} and strides {strides} is not contiguous; "
                "copy=True sends a copy"
            )
        return _given(path, _copied(array), copy=False, specs=False)
    given = Given(path, array, kind, shape, order)
    if size:
        given.descriptor = descriptor = Descriptor(array)
        if descriptor.size != size or (address is not None and descriptor.ptr != address):
            raise ArgumentError(
                f"{type(array).__name__} has its items otherwise in memory than it shows them to "
                "NumPy; give numpy.asarray() of it"
            )
    return given


def _plain(path: list[str], array: np.ndarray[Any, Any]) -> Given:
    """Do the same for an array as nearly all are."""
    given = Given(path, array, encoded(array.dtype), list(array.shape), "C")
    if len(given.shape) > MOST_DIMENSIONS:
        raise ArgumentError(f"it has {len(given.shape)} dimensions, more than {MOST_DIMENSIONS}")
    if array.size:
        given.descriptor = Descriptor(array)
    return given


def _described(array: Any) -> tuple[Named, list[int], Sequence[int] | None, int | None]:
    """Return an array's type, shape, and strides in bytes, None for those of C order.

    And where it says that its memory is, if that is not known to be what a `Descriptor` finds.
    """
    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise ArgumentError(
                "a masked array cannot be transferred: send its data and its mask as two arrays"
            )
        return encoded(array.dtype), list(array.shape), array.strides, None
    if _is_tensor(array):
        item = array.element_size()
        strides = [item * stride for stride in array.stride()]
        return encoded(array.dtype), list(array.shape), strides, None
    interface = getattr(array, "__cuda_array_interface__", None)
    if isinstance(interface, dict):
        # CuPy's type says more than a string of NumPy.
        dtype = getattr(array, "dtype", None)
        kind = encoded(dtype) if isinstance(dtype, np.dtype) else specified(interface["typestr"])
        return kind, list(interface["shape"]), interface.get("strides"), interface["data"][0]
    try:
        viewed = _viewed(array)
    except (TypeError, ValueError, AttributeError, BufferError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"it must be an array that says its shape and type, not {type(array).__name__}: "
            f"{error!s:.200}"
        ) from None
    address = viewed.__array_interface__["data"][0]
    return encoded(viewed.dtype), list(viewed.shape), viewed.strides, address


def _is_tensor(array: Any) -> bool:
    # Another thread may be importing it.
    tensors: Any = getattr(sys.modules.get("torch"), "Tensor", ())
    return isinstance(array, tensors)


def _viewed(array: Any) -> np.ndarray[Any, Any]:
    """Return NumPy's view of other memory of the host's."""
    if isinstance(array, (str, tuple, list, int, float, np.generic)) or array is None:
        raise TypeError("it has no memory of its own; numpy.asarray() makes an array")
    try:
        return np.asarray(memoryview(array))
    except (TypeError, ValueError, BufferError):
        if isinstance(getattr(array, "dtype", None), np.dtype) or isinstance(
            getattr(array, "__array_interface__", None), dict
        ):
            return np.asarray(array)  # JAX's bfloat16, too, which neither protocol knows
        return np.from_dlpack(array)


def _copied(array: Any) -> Any:
    """Return a copy in C order, on the same device."""
    if _is_tensor(array):
        return array.contiguous()
    if hasattr(array, "copy"):
        return array.copy(order="C")
    raise ArgumentError(f"{type(array).__name__} does not say how to copy it")


def _made(spec: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Return a new array, in host memory, of a (shape, type)."""
    if len(spec) != 2:
        raise ArgumentTypeError(f"a spec is (shape, type), not {len(spec)} things")
    try:
        return np.empty(spec[0], decoded(specified(spec[1])))
    except (TypeError, ValueError) as error:
        if isinstance(error, (ArgumentError, ArgumentTypeError)):
            raise
        raise ArgumentTypeError(f"a spec is (shape, type): {error}") from None


def regions(given: list[Given], *, written: bool) -> tuple[list[Descriptor], list[Entry]]:
    """Return the regions to offer, and which array is where in them.

    Views of one array (or, on the host, of one storage of torch) that lie side by side, or overlap,
    are in one region, if nothing else lies between them.

    Parameters
    ----------
    given : list of Given
        The arrays.
    written : bool
        Whether peers write to them: then none may be read-only, and none overlap.
    """
    if written:
        refuse_written(given)
    if len(given) == 1 and given[0].descriptor is not None:
        return [given[0].descriptor], [given[0].entry(0, 0)]
    made: list[Descriptor] = []
    places = [(0, 0)] * len(given)
    for run, start, end in _runs(given):
        for i in run:
            descriptor = given[i].descriptor
            assert descriptor is not None
            places[i] = len(made), descriptor.ptr - start
        made.append(_region([given[i] for i in run], start, end))
    if not made:
        # There are no bytes at all, but there is something to complete.
        made.append(Descriptor(bytearray(1)))
    return made, [it.entry(*place) for it, place in zip(given, places, strict=True)]


def _runs(given: list[Given]) -> list[tuple[list[int], int, int]]:
    """Return which arrays go together, and from where to where they are.

    In the order given, as far as the array at the beginning of each goes.
    """
    held = sorted(
        (it.descriptor.ptr, it.descriptor.ptr + it.descriptor.size, i)
        for i, it in enumerate(given)
        if it.descriptor is not None
    )
    runs: list[tuple[list[int], int, int]] = []
    run: list[int] = []
    start = end = 0
    for first, last, i in held:
        if run and first <= end and _root(given[i].array) == _root(given[run[-1]].array):
            run.append(i)
            end = max(end, last)
            continue
        if run:
            runs.append((run, start, end))
        run, start, end = [i], first, last
    if run:
        runs.append((run, start, end))
    runs.sort()
    return runs


def _region(run: list[Given], start: int, end: int) -> Descriptor:
    """Return the bytes of arrays that lie side by side."""
    for it in run:
        whole = it.descriptor
        assert whole is not None
        if whole.ptr == start and whole.size == end - start:
            return whole
    assert run[0].descriptor is not None
    return Descriptor((start, end - start, run[0].descriptor.device, [it.array for it in run]))


def refuse_written(given: list[Given], what: str = "arrays") -> None:
    """Raise unless all arrays can receive data: each in bytes of its own, or two in the very same.

    Whether it is the same data that these receive is for the caller to know.
    """
    for it in given:
        if it.descriptor is not None and it.descriptor.is_readonly:
            raise ArgumentError(f"{what}[{it.name!r:.80}] is read-only, so nothing can be received")
    held = sorted(
        ((it.descriptor.device.kind, *_bounds(it)), it.name)
        for it in given
        if it.descriptor is not None
    )
    for (place, one), (other_place, other) in itertools.pairwise(held):
        if place[0] == other_place[0] and other_place[1] < place[2] and place != other_place:
            raise ArgumentError(f"{what}[{one!r:.80}] and {what}[{other!r:.80}] overlap")


def _bounds(given: Given) -> tuple[int, int]:
    assert given.descriptor is not None
    return given.descriptor.ptr, given.descriptor.ptr + given.descriptor.size


def _root(array: Any) -> int:
    """Return what tells which allocation an array is of: views of one have the same."""
    if _is_tensor(array) and array.device.type == "cpu":
        return -int(array.untyped_storage().data_ptr())  # no object's number
    root = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    if isinstance(root, memoryview):
        root = root.obj
    return id(root)


def turned(given: Given, order: str) -> Given:
    """Return a copy of an array of NumPy in another order; what is no such array as it is."""
    if not isinstance(given.array, np.ndarray):
        return given
    (copied,) = collected({"x": np.array(given.array, order="F" if order == "F" else "C")})
    copied.path = given.path
    return copied
