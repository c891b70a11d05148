# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What belongs to the whole process, and is not NIXL's or UCX's to change.

UCX takes SIGHUP when it is loaded, and the signals of faults where it is asked to; libraries may
set how a thread calculates; threads that they start would take the program's signals. So each call
that loads them, or starts or ends something of theirs, stands between `keep` and `put_back`, on one
thread. Meanwhile signals wait: threads that are started inherit that for good, and a signal that no
other thread takes reaches the program's own handler.

Only handlers that lie outside the interpreter are put back. What the program sets meanwhile, on its
main thread, is a handler of the interpreter's, the default or nothing at all, and stays.

UCX logs to standard output, which is the program's. What it has to say goes to standard error from
the moment it is loaded, unless the variable UCX_LOG_FILE says where.

What UCX's libraries read from the environment, they read when they are loaded. `Variable` is for
that moment. A child that is started within it inherits the variable, and native code that changes
the environment at the same time, which nobody may do while others read it, may lose its change.
"""

class Quiet:
    """Has signals wait in a ``with`` block, and passes over the threads that are started there."""

    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...

class Variable:
    """Has a variable in the environment in a ``with`` block, unless it has been there before.

    Once per process and variable: each takes some memory for good. Holds the GIL where it changes
    something, as the interpreter does where it changes the environment.

    Parameters
    ----------
    name, value : bytes
        The variable, and what it is to be.
    """

    def __new__(cls, name: bytes, value: bytes) -> Variable: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...

def spare_threads(count: int) -> int:
    """Return how many threads the system has to spare, at most `count`, which is at most 16.

    They are started, and end again: limits of users, containers and memory, and how much of each is
    in use, cannot all be read.
    """
