"""Moves bytes between versions: of NIXL, and of this library, each pair of them in both directions.

    python tests/versions/between.py                     # every NIXL that is supported
    python tests/versions/between.py 1.3.1-cu12 1.5.1-cu12
    python tests/versions/between.py --revision 20a57c8  # of this library, with today's

One side offers memory of several shapes and the other reads or writes it, or begins to and cancels
at once. Every byte is compared, and both sides have to say that it ended, and how: on one host, and
on two, which are network namespaces, where this process may make such. Run by `make test-between`.
NIXL's wheels go to build/nixl, and a revision's clone with an environment of its own to
build/revisions.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path += [str(HERE.parent), str(ROOT / "tools")]
from networks import Network, may_make_namespaces  # noqa: E402, after the path
from nixl_versions import VERSIONS, library_of  # noqa: E402
from processes import Lines  # noqa: E402

SHAPES = {
    "8 bytes": [8],
    "8 bytes thrice": [8] * 3,
    "4 KiB a thousand times": [4096] * 1000,
    "uneven": [300_000, 7],
    "1 MiB": [1 << 20],
    "64 MiB": [64 << 20],
}
PATIENCE = 60.0
# UCX of NIXL 1.3.1 crashes where one of a newer NIXL reaches it on its own host.
OLD = "NIXL 1.3.1"


class Side:
    """A version: what it is called, its interpreter, and its environment."""

    def __init__(
        self, name: str, python: str, environment: dict[str, str], library: str = ""
    ) -> None:
        self.name = name
        self._python, self._environment, self._library = python, environment, library

    def start(self, prefix: Sequence[str]) -> Lines:
        """Start a process of that version, by a command that stands before its own, if any."""
        process = Lines(
            [*prefix, self._python, str(HERE / "either.py")],
            os.environ | self._environment,
            PATIENCE,
        )
        told = process.answer()
        assert self._library in ("", told["library"]), (self.name, told)
        # Of the environment that was asked for, not of the checkout.
        package = Path(told["package"])
        assert package.is_relative_to(Path(self._python).parents[1]), (self.name, told)
        return process

    def crashes(self, active: Side) -> bool:
        """Whether this one is known to end on one host when that one makes the transfer."""
        return self.name.startswith(OLD) and not active.name.startswith(OLD)


def of_nixl(name: str) -> Side:
    """Return this library on one of NIXL's wheels."""
    library = str(library_of(name))
    return Side(f"NIXL {name}", sys.executable, {"NIXL_CONNECT_LIBRARY": library}, library)


def of_revision(revision: str) -> Side:
    """Return a revision of this library, in an environment of its own."""
    folder = ROOT / "build" / "revisions" / revision
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "--quiet", revision], cwd=folder, check=True)
    # Nothing of the make that runs this.
    clean = {name: os.environ[name] for name in os.environ if not name.startswith(("MAKE", "NIXL"))}
    clean["VENV"] = ".venv"
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    command = ["make", "install", f"PYTHON={base}"]
    subprocess.run(command, cwd=folder, env=clean, check=True, stdout=subprocess.DEVNULL)
    return Side(f"revision {revision}", str(folder / ".venv" / "bin" / "python"), {})


def move(
    passive: Side, active: Side, times: int, prefixes: Sequence[Sequence[str]]
) -> Iterator[bool]:
    """Move all shapes between two sides, and yield of each whether it was cancelled in time."""
    offering, moving = (
        side.start(each) for side, each in zip((passive, active), prefixes, strict=True)
    )
    try:
        for kind, (shape, sizes), seed, cancelled in itertools.product(
            ("read", "write"), SHAPES.items(), range(times), (False, True)
        ):
            what = {"kind": kind, "sizes": sizes, "seed": seed}
            metadata = offering.do("offer", **what)
            theirs = moving.do("move", metadata=metadata, cancelled=cancelled, **what)
            ours = offering.answer()
            where = (passive.name, active.name, kind, shape, cancelled, ours, theirs)
            assert ours["status"] == theirs["status"], where
            assert ours["error"] == theirs["error"], where
            if theirs["status"] == "DONE":
                assert ours == theirs, where
            else:
                assert cancelled, where
                assert theirs["status"] == "STOP", where
            yield theirs["status"] == "STOP"
    finally:
        offering.end()
        moving.end()


@contextlib.contextmanager
def places() -> Iterator[dict[str, Sequence[Sequence[str]]]]:
    """Yield where the two sides may be, and what their commands begin with there."""
    if refusal := may_make_namespaces():
        print(f"on one host only: {refusal}")
        yield {"one host": ([], [])}
        return
    network = Network(2)
    try:
        yield {"one host": ([], []), "two hosts": [host.prefix for host in network.hosts]}
    finally:
        network.delete()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="between.py", description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION-BUILD")
    parser.add_argument("--revision", help="of this library, in place of versions of NIXL")
    parser.add_argument("--times", type=int, default=2, help="each shape (%(default)s)")
    options = parser.parse_args()
    if options.revision:
        sides = [of_revision(options.revision), Side("today's", sys.executable, {})]
    else:
        sides = [of_nixl(name) for name in options.versions or VERSIONS]
    began, ended = time.monotonic(), Counter()
    with places() as there:
        for (place, prefixes), passive, active in itertools.product(there.items(), sides, sides):
            if options.revision and passive is active:
                continue  # each has tests of its own
            print(f"{place}: {passive.name} offers, {active.name} moves", end="", flush=True)
            if place == "one host" and passive.crashes(active):
                try:
                    list(move(passive, active, 1, prefixes))
                except EOFError:
                    print(": crashes, as is known", flush=True)
                    continue
                print(": does not crash any more")
                return 1
            these = Counter(move(passive, active, options.times, prefixes))
            print(f": {these.total()} operations agree", flush=True)
            ended += these
    print(
        f"{ended.total()} operations between {len(sides)} versions agree, of which {ended[True]} "
        f"were cancelled, in {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
