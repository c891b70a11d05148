"""Count the instructions of a pair, and fail above the ceilings: python tests/instructions.py

Callgrind counts those of the thread that offers, reads and waits, in the blocking and in the
asyncio form; times do not matter. What NIXL and UCX take depends on when bytes come and is not
compared, nor are the C library, which they use too, and other threads, which look and sleep by the
clock.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pairs

import nixl_connect as nc

# Of this package's native code and the interpreter with its modules, for each version of Python and
# each form: above what was counted on a busy machine. Whoever makes it less lowers them. Another
# build of the same Python may differ by more. The least is mostly of a pair whose waits found what
# they waited for, and what it held released by another thread. One that releases by itself takes a
# tenth more, and on a busy machine all may.
CEILINGS = {"3.11": {"blocking": 95_000, "asyncio": 122_000}}
WARM, ROUNDS = 20, 30
COMPARED = ("interpreter", "native")
SWITCH = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; }
void begin(void) { CALLGRIND_ZERO_STATS; }
void end(const char *form) { CALLGRIND_DUMP_STATS_AT(form); }
"""


def build_switch(folder: Path) -> Path:
    """Build what turns the counting on and off within a process."""
    source, library = folder / "switch.c", folder / "switch.so"
    source.write_text(SWITCH)
    command = ["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)]
    if not (shutil.which("cc") and shutil.which("valgrind")):
        sys.exit("needs valgrind and a C compiler")
    if subprocess.run(command, check=False).returncode:
        sys.exit("needs the headers of valgrind, too")
    return library


def work(switch: ctypes.CDLL) -> None:
    """Do what is counted: under valgrind."""
    source, target = b"8 bytes.", bytearray(8)
    gc.disable()
    with nc.Connector() as owner, nc.Connector() as mover:
        ends = owner, mover

        async def within_asyncio() -> None:
            for _ in range(ROUNDS):
                pairs.settle(ends)
                switch.begin()
                await pairs.within_asyncio(*ends, nc.Descriptor(source), nc.Descriptor(target))
                switch.end(b"asyncio")

        for _ in range(WARM):
            pairs.blocking(*ends, nc.Descriptor(source), nc.Descriptor(target))
        switch.start()
        for _ in range(ROUNDS):
            pairs.settle(ends)
            switch.begin()
            pairs.blocking(*ends, nc.Descriptor(source), nc.Descriptor(target))
            switch.end(b"blocking")
        asyncio.run(within_asyncio())
    assert target == source


def owner_of(path: str) -> str:
    """Return whose an object file is."""
    if "nixl_connect/_native" in path:
        return "native"
    if re.search(r"/\.?nixl_cu\d+|/lib(nixl|plugin_|uc[mpst])[^/]*$", path):
        return "NIXL and UCX"
    if "python" in path:
        return "interpreter"
    return "C library and others"


def read(profile: Path) -> tuple[str, Counter[str]]:
    """Return the form that a profile is of, and its instructions for each owner."""
    counted: Counter[str] = Counter()
    form = owner = ""
    of_callee = False
    total = 0
    for line in profile.read_text().splitlines():
        if line.startswith("desc: Trigger: Client Request: "):
            form = line.rpartition(" ")[2]
        elif line.startswith("totals: "):
            total = int(line.split()[1])
        elif line.startswith("ob="):
            owner = owner_of(line[3:])
        elif line.startswith("calls="):
            of_callee = True  # the next line has what the callee took, which stands elsewhere, too
        elif line[:1].isdigit():
            if not of_callee:
                counted[owner] += int(line.split()[1])
            of_callee = False
    assert counted.total() == total, f"{profile}: {counted.total()} of {total} instructions"
    return form, counted


def compared(counted: Counter[str]) -> int:
    """Return the instructions that have a ceiling."""
    return sum(counted[owner] for owner in COMPARED)


def main() -> None:
    """Run, and judge."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [
            "valgrind",
            "--tool=callgrind",
            "--quiet",
            "--instr-atstart=no",
            "--separate-threads=yes",
            "--compress-strings=no",
            "--compress-pos=no",
            f"--callgrind-out-file={folder / 'profile'}",
            sys.executable,
            __file__,
            str(build_switch(folder)),
        ]
        # Where dictionaries put their keys does not differ from run to run.
        environment = os.environ | {"PYTHONHASHSEED": "0", "UCX_LOG_LEVEL": "error"}
        subprocess.run(command, env=environment, check=True, timeout=600)
        profiles = [read(path) for path in sorted(folder.glob("profile*-*"))]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    above = False
    for form in ("blocking", "asyncio"):
        rounds = [counted for of, counted in profiles if of == form]
        assert len(rounds) == ROUNDS
        least = min(rounds, key=compared)
        ceiling = CEILINGS.get(version, {}).get(form)
        measured = compared(least)
        middle = statistics.median(map(compared, rounds)) / measured - 1
        parts = ", ".join(f"{owner} {least[owner]:,}" for owner in sorted(least))
        allowed = "no ceiling" if ceiling is None else f"{ceiling:,} are allowed"
        print(f"{form}: {measured:,} instructions for a pair, {allowed} (median {middle:+.1%})")
        print(f"    {parts}")
        above |= ceiling is not None and measured > ceiling
    others = sum(compared(counted) for of, counted in profiles if not of)
    print(f"other threads: {others // (2 * ROUNDS):,} for a pair")
    if version not in CEILINGS:
        sys.exit(f"no ceilings for Python {version}: nothing was compared")
    if above:
        sys.exit("above the ceiling")


if __name__ == "__main__":
    if sys.argv[1:]:
        work(ctypes.CDLL(sys.argv[1]))
    else:
        main()
