#!/usr/bin/env python
"""Fuzz one target, guided by coverage: needs the package ``atheris``.

Of the Python code; and of the native code where it was built for that (``make fuzz-guided
SANITIZE=fuzzer``), which then finds stray accesses, too.

    tests/fuzz/fuzz.py envelope -max_total_time=60 [libFuzzer's options]
    tests/fuzz/fuzz.py envelope -merge=1

What it finds goes to build/fuzz/NAME, beside the corpus in tests/fuzz/corpus/NAME, which it reads.
The second command adds to the corpus what is new in it.
"""

import os
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
with atheris.instrument_imports(include=["nixl_connect", "targets"]):
    from targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer has enough."""
    options = sys.argv[1:]
    # libFuzzer starts this program again to merge, with its own arguments alone.
    again = "FUZZ_TARGET" in os.environ
    name = os.environ["FUZZ_TARGET"] if again else options.pop(0)
    os.environ["FUZZ_TARGET"] = name
    target = TARGETS[name]
    found = Path("build", "fuzz", name)
    found.mkdir(parents=True, exist_ok=True)
    if not again and not any("-merge" in option for option in options):
        options = ["-max_len=8192", *options, str(found), str(HERE / "corpus" / name)]
    elif not again:
        options += ["-max_len=8192", str(HERE / "corpus" / name), str(found)]
    atheris.Setup(
        [sys.argv[0], *options],
        lambda data: target(data) and None,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
