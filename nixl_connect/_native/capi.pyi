# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Resolves NIXL's C API from a shared library; the sole owner of its function pointers."""

class NativeError(Exception):
    """A call of NIXL's C API failed.

    Attributes
    ----------
    status : int
        The status that the call returned.
    call : str
        Name of the C function, without its prefix.
    """

    status: int
    call: str

    def __init__(self, status: int, call: str) -> None: ...

class LoadError(Exception):
    """A file is not a usable NIXL C library; the text says why."""

def status_name(status: int) -> str:
    """Return the name of a NIXL C API status code."""

def loaded_from() -> str | None:
    """Path of the library in use, or None before the first successful `load`."""

def load(path: str) -> None:
    """Open a NIXL C library and resolve its functions. A second call does nothing.

    Parameters
    ----------
    path : str
        File name of ``libnixl_capi.so``.

    Raises
    ------
    LoadError
        The file cannot be opened, or lacks functions that this package calls.
    """
