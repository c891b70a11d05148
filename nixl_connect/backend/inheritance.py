"""Keeps the file descriptors of NIXL and UCX from child processes."""

from __future__ import annotations

import logging
import os

from nixl_connect._native import redirect

logger: logging.Logger = logging.getLogger(__name__)

_WHEEL = ".mesonpy.libs"
_warned = False


def folders_of(library: str) -> list[str]:
    """Return the folders that hold NIXL's and UCX's libraries and nothing else.

    A wheel has two: of what was built, and of all that this needs. Elsewhere they may share a
    folder with the rest of the system, and are known by their names: an empty list.
    """
    folder = os.path.dirname(os.path.realpath(library))
    parent, name = os.path.split(folder)
    if not name.endswith(_WHEEL):
        return []
    needed = f"{name.removeprefix('.').removesuffix(_WHEEL)}.libs"
    return [folder, os.path.join(parent, needed)]


def keep_from_children(library: str | None = None) -> None:
    """Have what NIXL and UCX open from here on be closed in children; see `file_descriptors`.

    To be repeated when more of their libraries have been loaded.

    Parameters
    ----------
    library : str, optional
        File name of NIXL's C library, the first time.
    """
    global _warned  # noqa: PLW0603
    if library is not None:
        redirect.set_folders(folders_of(library))
    refused = redirect.redirect()
    if refused and not _warned:
        _warned = True
        logger.warning(
            "%d calls of NIXL and UCX cannot be led to this package: while a child process lives "
            "that was started after a connector opened, peers may not notice that this one ends",
            refused,
        )
