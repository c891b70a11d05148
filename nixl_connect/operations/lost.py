"""Warns of operations that are dropped although peers know of them, where mistakes are looked for.

That is in development mode (``python -X dev``) and where tracemalloc runs when this package is
imported. Elsewhere it costs nothing.
"""

from __future__ import annotations

import _tracemalloc
import functools
import os
import sys
import warnings
from typing import Any

WANTED: bool = sys.flags.dev_mode or _tracemalloc.is_tracing()
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def watch(operation: type[Any]) -> None:
    """Have a class of operations note where each is made, and warn when one is lost."""
    made = operation.__init__

    @functools.wraps(made)
    def noting(self: Any, *arguments: Any, **options: Any) -> None:
        self._made_at = _caller()
        made(self, *arguments, **options)

    operation.__init__ = noting
    operation.__del__ = _warn


def _caller() -> str:
    """Return the place in the program that has led here."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _warn(self: Any) -> None:
    """Be `__del__`: dropping the operation cancels it, which its peers did not expect.

    What still stands when the program ends was not dropped: it is silent about that.
    """
    native = self._native
    if (
        not sys.is_finalizing()
        and native is not None
        and not native.has_ended
        and not self._released
        and not self._connection._engine.forked
        and (self._told is not None or self._told_in_hex is not None)
    ):
        warnings.warn(
            f"{self!r}, made at {self._made_at}, was dropped and so is cancelled, though its "
            "metadata was handed out: refer to it until it ends, or call its keep()",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )
