"""Run the native layer under valgrind, and fail if it leaks or strays: python tests/valgrind.py

The interpreter, NIXL and UCX have findings of their own. Those count here whose stack has a frame
of this package's native modules before any of theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
# Still reachable is what the interpreter has at its end.
KINDS = {
    "InvalidRead",
    "InvalidWrite",
    "InvalidFree",
    "InvalidJump",
    "MismatchedFree",
    "Overlap",
    "UninitCondition",
    "UninitValue",
    "SyscallParam",
    "Leak_DefinitelyLost",
    "Leak_IndirectlyLost",
}
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from exhausted import life
for _ in range(3):
    life()
"""


def ours(error: ElementTree.Element) -> bool:
    """Whether an error is of this package's own."""
    for frame in error.iterfind("stack/frame"):
        path = frame.findtext("obj", "")
        if "nixl_connect/_native" in path:
            return True
        if any(
            name in path for name in ("nixl", "ucp", "ucs", "uct", "ucm", "libpython", "python")
        ):
            return False
    return False


def main() -> None:
    """Run, and judge."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        subprocess.run(
            [
                "valgrind",
                "--leak-check=full",
                "--errors-for-leak-kinds=definite,indirect",
                "--num-callers=30",
                "--xml=yes",
                f"--xml-file={report}",
                sys.executable,
                "-c",
                PROGRAM.format(here=str(HERE)),
            ],
            env=os.environ | {"PYTHONMALLOC": "malloc", "UCX_LOG_LEVEL": "error"},
            check=True,
            timeout=1200,
        )
        errors = list(ElementTree.parse(report).getroot().iterfind("error"))
    seen: Counter[tuple[bool, str]] = Counter()
    for error in errors:
        kind = error.findtext("kind", "")
        mine = kind in KINDS and ours(error)
        seen[mine, kind] += 1
        if mine:
            print(ElementTree.tostring(error, encoding="unicode"))
    for (mine, kind), count in sorted(seen.items()):
        print(f"{'own' if mine else 'others'}: {count} x {kind}")
    sys.exit(1 if any(mine for mine, _ in seen) else 0)


if __name__ == "__main__":
    main()
