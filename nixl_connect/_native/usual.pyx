"""Whether a message is like most: then nothing in it has to be looked at again.

Functions that messages have as ``__post_init__``. They read public fields, under the GIL; whatever
is unusual, or wrong, is left to the `_settle` of the message, which puts it right or says so.
"""

from libc.stdint cimport UINT64_MAX, uint64_t


def region(item: object) -> None:
    """Accept a descriptor of host memory within the address space."""
    device, ptr, size = item.device, item.ptr, item.size
    cdef uint64_t start, length
    if type(device) is str and type(ptr) is int and type(size) is int and device == "cpu":
        try:
            start, length = ptr, size
        except OverflowError:
            start = length = 0
        if start and length <= UINT64_MAX - start:
            return
    item._settle()


def message(item: object) -> None:
    """Accept metadata whose fields are of the very types that they are declared as."""
    cdef list described
    each = kind = None
    descriptors, operation = item.descriptors, item.operation_kind
    if (
        type(descriptors) is list and type(operation) is int and 0 <= operation <= 2
        and type(item.nixl_metadata) is str and type(item.notification_key) is str
    ):
        described = descriptors
        kind = item._described
        for each in described:
            if type(each) is not kind:
                break
        else:
            return
    item._settle()
