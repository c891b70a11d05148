"""Child processes of a command, as their parent sees them.

Parent and child talk in JSON, one message to a line, on the child's standard input and output. No
wait is without a deadline and no child outlives its parent: leaving the ``with`` block kills what
is left, and a child ends by itself when its standard input does (`nixl_connect.cli.child`). It
does not end before that, unless it fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from nixl_connect.cli.errors import ChildError

if TYPE_CHECKING:
    from typing_extensions import Self

# The child imports from where its parent did, not from the folder that it happens to start in.
_BOOT = """\
import sys
sys.path[:] = sys.argv[1].split("\\n")
import importlib
importlib.import_module(sys.argv[2]).main()
"""
_KILLED_WITHIN = 10.0
# The sockets of a process are closed, which others report, a little before it has ended.
_CAUSE = 0.5
_TAIL_BYTES = 2000
_LOG_BYTES = 1 << 20
_HARMLESS = ("LC_", "UCX_", "NIXL_", "CUDA_", "NVIDIA_")


class _Child:
    """One process and the ends of its pipes."""

    def __init__(
        self, name: str, module: str, environment: Mapping[str, str], user: pwd.struct_passwd | None
    ) -> None:
        self.name = name
        self.unread = b""
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed by close
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, "\n".join(sys.path), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                # A Ctrl-C is for the parent, which then ends its children in order.
                start_new_session=True,
                **_owned(user, environment),
            )
        except OSError as error:
            self.errors.close()
            raise ChildError(
                f"process {name} cannot be started{'' if user is None else f' as {user.pw_name}'}: "
                f"{sys.executable}: {error.strerror}"
            ) from None
        except BaseException:
            self.errors.close()
            raise
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout

    def close(self) -> None:
        """Kill the process if it lives, and give everything back."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_KILLED_WITHIN)
        self.stdout.close()
        self.errors.close()
        with contextlib.suppress(BrokenPipeError):  # what it had not read goes with it
            self.stdin.close()

    def ends(self, seconds: float) -> bool:
        """Whether the process has ended, or does so within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.returncode is not None

    def death(self) -> ChildError:
        """Return the error of a child that ended before its work did."""
        code = self.process.wait(_KILLED_WITHIN)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        last = self.last_words()
        return ChildError(
            f"process {self.name} {how}" + (f"; its last words:\n{last}" if last else ""),
            log=self.written(_LOG_BYTES),
        )

    def last_words(self) -> str:
        """Return the last that the process wrote to its standard error."""
        return self.written(_TAIL_BYTES).strip()

    def written(self, most: int) -> str:
        """Return what the process wrote to its standard error, the last of it if that is much."""
        # Not by reading on: the process, if it lives, writes where this file is at.
        number = self.errors.fileno()
        size = os.fstat(number).st_size
        return os.pread(number, most, max(0, size - most)).decode(errors="replace")


def _owned(user: pwd.struct_passwd | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return whose a new process is, and its variables: in another user's, no secrets of ours."""
    if user is None:
        return {"env": {**os.environ, **environment}}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_HARMLESS) or name in ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH")
    }
    its = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    # Nor do its own packages run here.
    return {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid),
        "cwd": "/",
        "env": {**kept, **its, "PYTHONNOUSERSITE": "1", **environment},
    }


class Children:
    """The children of one command, killed when the ``with`` block is left."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()

    def start(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str] | None = None,
        user: pwd.struct_passwd | None = None,
    ) -> None:
        """Start a process.

        Parameters
        ----------
        name : str
            What to call it.
        module : str
            Module whose ``main()`` it runs.
        environment : mapping of str to str, optional
            Variables to add to those of this process.
        user : struct_passwd, optional
            Whose process it is; by default this one's user's. Only root can choose.

        Raises
        ------
        ChildError
            It cannot be started.
        """
        child = _Child(name, module, environment or {}, user)
        self._children[name] = child
        self._selector.register(child.stdout, selectors.EVENT_READ, child)

    def send(self, name: str, **message: Any) -> None:
        """Send a message to a child, which reads all that comes at once."""
        child = self._children[name]
        try:
            child.stdin.write(json.dumps(message).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            raise child.death() from None

    def receive(self, timeout: float) -> tuple[str, dict[str, Any]]:
        """Return the next message of any child, and the child's name.

        Raises
        ------
        ChildError
            A child reports that it failed, it died, or none said anything for `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            for child in self._children.values():
                line, found, rest = child.unread.partition(b"\n")
                if found:
                    child.unread = rest
                    return child.name, self._understood(child, line)
            ready = self._selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                names = " and ".join(self._children)
                raise ChildError(f"nothing heard from {names} for {timeout:g} seconds")
            for key, _ in ready:
                child = key.data
                data = os.read(child.stdout.fileno(), 1 << 16)
                if not data:
                    raise child.death()
                child.unread += data

    def _understood(self, child: _Child, line: bytes) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(line)
        if message["event"] != "failed":
            return message
        for other in self._children.values():
            if other is not child and other.ends(_CAUSE):
                raise other.death()  # the cause; that the first one failed is the effect
        raise ChildError(
            f"process {child.name}: {message['text']}",
            kind=message["kind"],
            reason=message["text"],
            log=child.written(_LOG_BYTES),
        )

    def log(self, name: str) -> str:
        """Return what a child wrote to its standard error."""
        return self._children[name].written(_LOG_BYTES)

    def finish(self, timeout: float) -> None:
        """Tell all children to end, and see that they do.

        Raises
        ------
        ChildError
            One ended with another status than 0, or not within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        for child in self._children.values():
            child.stdin.close()
        for child in self._children.values():
            try:
                code = child.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise ChildError(
                    f"process {child.name} did not end within {timeout:g} seconds"
                ) from None
            if code:
                raise child.death()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._selector.close()
        for child in self._children.values():
            child.close()
