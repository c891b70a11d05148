# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The file descriptors that no other process may have: NIXL's, UCX's, and this package's.

A socket lives as long as anybody has it. UCX's are handed down to children, and while a child of
any kind lives, peers are not told that this process is gone. So what is opened here is closed by
every exec, and noted; in a forked child each one that is noted is replaced by /dev/null, under its
number: what UCX still does with it there, at exit for instance, reaches neither a peer nor what
somebody else has opened.

NIXL's and UCX's calls are led here by `redirect`. Nobody else's are: descriptors that others open,
before, meanwhile or after, are handed down as ever. So are the shared segments that UCX maps: exec
closes them anyway, and a forked child has them in its memory.

`_lock` is held from before a descriptor is there until it is noted, and while it is closed. A fork
takes it too, so that no child comes in between. It is taken last of all, and nothing that is done
with it waits for anybody. A number may still be closed by somebody whose calls are not led here,
and given out again, so a note says which file it was.

In the child everything up to the end of `_replace` is safe after a fork: system calls alone.
"""

def noted() -> list[int]:
    """Return the numbers of the descriptors that a forked child would not have."""
