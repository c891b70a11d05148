"""The parent of a child process, as the child sees it: messages both ways, and an end in time."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from nixl_connect.errors import NixlConnectError

# Seconds that a child may take to end in order once its parent is gone or wants no more.
_ORDERLY_END = 10.0


class Parent:
    """The other end of standard input and output.

    Standard output becomes standard error for everything else, so that what a native library prints
    does not end up among the messages.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def _listen(self) -> None:
        # Not through sys.stdin: the interpreter cannot end while a thread waits in it.
        unread = b""
        while data := os.read(0, 1 << 16):
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                self._messages.put(json.loads(line))
        last = threading.Timer(_ORDERLY_END, os._exit, (1,))
        last.daemon = True
        last.start()
        self._messages.put(None)

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None, also when asked again, if the parent has no more or is gone."""
        message = self._messages.get()
        if message is None:
            self._messages.put(None)
        return message

    def expect(self) -> dict[str, Any]:
        """Wait for a message that has to come; end the process if it does not."""
        message = self.receive()
        if message is None:
            raise SystemExit(1)
        return message

    def report(self, event: str, **fields: Any) -> None:
        """Send a message; end the process if nobody is left to hear it."""
        try:
            self._out.write(json.dumps({"event": event, **fields}) + "\n")
            self._out.flush()
        except BrokenPipeError:
            raise SystemExit(1) from None


def run(work: Callable[[Parent], None]) -> None:
    """Run a child's work and stay until the parent has no more, or report an error and exit with 1.

    Parameters
    ----------
    work : callable
        Given the parent.
    """
    parent = Parent()
    try:
        work(parent)
    except Exception as error:
        if isinstance(error, NixlConnectError):
            text = str(error)
        else:
            text = f"{type(error).__name__}: {error}"
            traceback.print_exc(file=sys.stderr)
        parent.report("failed", kind=type(error).__name__, text=text)
        raise SystemExit(1) from error
    while parent.receive() is not None:
        pass
