"""Many blocks of one region, such as a paged cache, without a Python object for each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from nixl_connect._native.packing import Regions
from nixl_connect.checks import integer
from nixl_connect.errors import ArgumentError, ArgumentTypeError
from nixl_connect.memory.data import ArrayInterface, Buffer, Data, Stream
from nixl_connect.memory.descriptor import Descriptor
from nixl_connect.memory.device import Device
from nixl_connect.memory.tables import Group


class Blocks:
    """A selection of the blocks that a region of memory is divided into, in a given order.

    Can be used wherever a `Descriptor` can, alone or in a list with others. On either side, each
    block counts as one descriptor: blocks pair with blocks, or with as many descriptors of the same
    size.

    Parameters
    ----------
    data : Descriptor, or what a Descriptor accepts
        The memory, such as a whole cache. It is registered as a whole. If it is used repeatedly,
        register it beforehand, as its own `Descriptor`.
    block_size : int
        Size of each block, in bytes.
    indices : range, array of integers, or sequence of int
        Which blocks, and in which order: the i-th block starts ``indices[i] * stride`` bytes from
        the start of the memory. A NumPy array, or any other one-dimensional buffer of integers, is
        read directly, without a Python object for each index. Later changes to it have no effect.
    stride : int, optional
        Bytes from the start of one block to the start of the next; by default `block_size`.
    stream : object, optional
        As for `Descriptor`; not allowed if `data` is one.

    Raises
    ------
    ArgumentError
        There is no index, one lies outside the memory, or a size does not fit. Also a ValueError.
    ArgumentTypeError
        An index or a size is not an integer. Also a TypeError.
    """

    __slots__ = ("_block_size", "_descriptor", "_regions", "_stride")

    def __init__(
        self,
        data: Descriptor | Data,
        block_size: int,
        indices: Sequence[int] | Buffer | ArrayInterface,
        *,
        stride: int | None = None,
        stream: Stream | None = None,
    ) -> None:
        if isinstance(data, Descriptor):
            if stream is not None:
                raise ArgumentError("stream: the descriptor has one, or none")
            self._descriptor = data
        else:
            self._descriptor = Descriptor(data, stream=stream)
        self._block_size = _positive("block_size", block_size)
        self._stride = self._block_size if stride is None else _positive("stride", stride)
        size = self._descriptor.size
        if self._block_size > size:
            raise ArgumentError(f"block_size is {block_size}, but the memory has {size} bytes")
        if isinstance(indices, (list, tuple)):
            indices = _packed(indices)
        count = (size - self._block_size) // self._stride + 1
        try:
            self._regions = Regions.of_blocks(
                self._descriptor.ptr,
                self._stride,
                self._block_size,
                self._descriptor.device.id,
                count,
                indices,
            )
        except (ValueError, OverflowError) as error:
            raise ArgumentError(_fault(indices, count) or str(error)) from None
        except (TypeError, BufferError):
            raise ArgumentTypeError(
                f"indices must be a range, an array of integers or a list of them, "
                f"not {type(indices).__name__}"
            ) from None

    def __len__(self) -> int:
        return len(self._regions)

    @property
    def descriptor(self) -> Descriptor:
        """Descriptor of the memory that the blocks are in."""
        return self._descriptor

    @property
    def block_size(self) -> int:
        """Size of each block, in bytes."""
        return self._block_size

    @property
    def size(self) -> int:
        """Size of all blocks together, in bytes."""
        return self._regions.nbytes

    @property
    def device(self) -> Device:
        """Where the memory is."""
        return self._descriptor.device

    def _within(self) -> bool:
        """Whether the descriptor, which a pool may have shrunk since, still has all blocks."""
        descriptor = self._descriptor
        if descriptor.size == descriptor._whole:
            return True
        import numpy  # late: few programs shrink what they cut into blocks

        rows = numpy.asarray(self._regions)
        return int((rows[:, 0] + rows[:, 1]).max()) <= descriptor.ptr + descriptor.size

    def _group(self) -> Group:
        """Return what a peer is told."""
        pointer = self._descriptor.ptr
        indices = self._regions.indices(pointer, self._stride)
        width = len(indices) // len(self._regions)
        return Group(str(self.device), pointer, self._block_size, self._stride, width, indices)

    def __reduce__(self) -> Any:
        raise TypeError("Blocks cannot be copied or pickled; send an operation's metadata")

    def __repr__(self) -> str:
        return f"Blocks({len(self)} x {self._block_size} bytes of {self._descriptor})"


def _positive(name: str, value: int) -> int:
    number = integer(name, value)
    if not 0 < number < 1 << 63:
        raise ArgumentError(f"{name} must be 1 or more, not {number}")
    return number


def _fault(indices: Any, count: int) -> str:
    """Return what is wrong with indices, if it is their number or one of them."""
    try:
        values = indices if isinstance(indices, range) else memoryview(indices)
        if not values:
            return "indices must not be empty"
        for i, x in enumerate(values):
            if not 0 <= x < count:
                return f"indices[{i}] is {x}, but there are {count} blocks, 0 to {count - 1}"
    except (TypeError, ValueError, NotImplementedError):
        pass  # no such list of integers, which the error itself says
    return ""


def _packed(indices: Sequence[int]) -> array[int]:
    """Return a list of integers as an array."""
    if any(isinstance(item, bool) for item in indices):
        raise ArgumentTypeError("indices must be integers, not bool")
    try:
        return array("q", tuple(indices))  # a conversion may run code that changes the list
    except OverflowError:
        raise ArgumentError("indices: one leaves 64 bits") from None
    except TypeError:
        raise ArgumentTypeError("indices must be integers") from None
