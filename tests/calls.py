"""NIXL's functions led through Python: to count calls, to hold them up, or to have them fail."""

import contextlib
import ctypes
import re
import threading
from pathlib import Path

from processes import DEADLINE

import nixl_connect as nc
from nixl_connect._native import capi

# The table of functions as it is declared, in order.
_DECLARED = (Path(capi.__file__).parent / "capi.pxd").read_text().partition("cdef struct Api:")[2]
_FUNCTIONS = {
    name: len(parameters.split(","))
    for name, parameters in re.findall(r"int \(\*(\w+)\)\(([^)]*)\)", _DECLARED)
}


def _table():
    """Return the addresses of NIXL's functions, by which all the package calls them."""
    capsule = ctypes.py_object(capi.__pyx_capi__["api"])
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found = ctypes.PYFUNCTYPE(ctypes.c_void_p)(pointer(capsule, name(capsule)))()
    return (ctypes.c_void_p * len(_FUNCTIONS)).from_address(found)


@contextlib.contextmanager
def led(name, call):
    """Have `call(original, *arguments)` called in the place of one of NIXL's functions.

    Without a lock of Python's, but perhaps with locks of the package: it must not use that.
    """
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * _FUNCTIONS[name])
    table, at = _table(), list(_FUNCTIONS).index(name)
    before = table[at]
    original = kind(before)
    replacement = kind(lambda *arguments: call(original, *arguments))
    table[at] = ctypes.cast(replacement, ctypes.c_void_p).value
    try:
        yield
    finally:
        table[at] = before


def failing(name, status=-2, *, times=None):
    """Have one of NIXL's functions fail, so often or always, without being called."""
    calls = []

    def call(original, *arguments):
        calls.append(None)
        if times is None or len(calls) <= times:
            return status
        return original(*arguments)

    return led(name, call)


@contextlib.contextmanager
def held_up(connector):
    """Have a thread be in the middle of registering memory with a connector."""
    connection = connector._open()
    entered, leave = threading.Event(), threading.Event()
    worker = None

    def call(original, *arguments):
        if threading.current_thread() is worker:
            entered.set()
            assert leave.wait(DEADLINE)
        return original(*arguments)

    def register():
        descriptor = nc.Descriptor(bytearray(8))
        descriptor.register_with_connector(connection)

    with led("register_mem", call):
        worker = threading.Thread(target=register)
        worker.start()
        try:
            assert entered.wait(DEADLINE)
            yield leave.set
        finally:
            leave.set()
            worker.join(DEADLINE)


def handle_of(agent):
    """Return the handle by which NIXL knows an agent."""
    seen = []

    def call(original, *arguments):
        seen.append(arguments[0])
        return original(*arguments)

    with led("get_available_plugins", call):
        agent.plugins()
    return seen[0]
