# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Leads calls of NIXL and UCX to functions of this package, and nobody else's.

A library calls functions of another by way of words in its memory that the loader has filled with
their addresses, and its relocations say which word is whose. Here those of the functions that
`file_descriptors` and `copying` replace are overwritten, in NIXL's and UCX's own libraries alone.
UCX does the same to everything that is loaded, for the calls that map memory.

It is done again whenever more of them have been loaded: transports are, and UCX's modules. Those
may open devices at once, so `dlopen` is replaced, too.

While another thread loads a library, it is listed already, and its words are still being filled,
on pages that have to be writable for that. So what is listed is looked at only after the loader has
let go of the lock that it holds while it loads.
"""

def set_folders(folders: list[str]) -> None:
    """Say where NIXL's and UCX's libraries are, before `redirect`. A second call does nothing.

    Parameters
    ----------
    folders : list of str
        Real paths of folders that hold nothing else; if none, they are known by their names.
    """

def redirect() -> int:
    """Lead the calls of what has been loaded so far.

    Returns
    -------
    int
        How many of those that open and close descriptors could not be led elsewhere: that are not
        made in a way that is known here, or whose words the system did not let this process change.
    """

def copies_refused() -> int:
    """Return how many of those that copy between processes could not."""
