"""Run the core of the tests with every NIXL that is supported, and write what was seen.

Each wheel is unpacked into build/nixl without its dependencies; NIXL_CONNECT_LIBRARY names its
library. Usage: ``python tools/nixl_versions.py [VERSION-BUILD ...]``, from the root of the
repository; the table is written where all were run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

VERSIONS = [f"{version}-{build}" for version in ("1.3.1", "1.4.1", "1.5.0", "1.5.1")
            for build in ("cu12", "cu13")]  # fmt: skip
FOLDER = Path("build/nixl")
PAGE = Path("docs/reference/nixl-versions.md")
BEGIN, END = '<!-- Made by "make test-nixl-versions". -->', "<!-- Until here. -->"
NAMES = (
    *("operations/test_api", "operations/test_lifecycle", "operations/test_closing"),
    "operations/test_prepared",
    *("operations/test_threads", "operations/test_transfer", "reference/test_callers"),
    *("peers/test_peers", "peers/test_registrations", "memory/test_blocks"),
    *("native/test_envelope", "wire/test_metadata", "whole/test_large"),
)
CORE = [f"tests/{name}.py" for name in NAMES]
MINUTES = 15
# Which library is loaded, and what is told of a peer that has died.
PROBE = """
import sys
sys.path.insert(0, "tests")
import numpy as np
import nixl_connect as nc
from nixl_connect.backend import library
from processes import Peer
print("LOADED", library.load().path)
peer = Peer({})
peer.do("connect")
made = peer.do("passive", kind="readable", sizes=[64])
peer.kill()
peer.end()
with nc.Connector(timeout=20) as connector:
    try:
        read = connector.begin_read_blocking(
            nc.RdmaMetadata.model_validate(made["metadata"]), nc.Descriptor(np.zeros(64, np.uint8))
        )
        read.wait_for_completion_blocking()
    except nc.NixlConnectError as error:
        print("SEEN", type(error).__name__, getattr(error, "status", "") or "-")
"""


def library_of(name: str) -> Path:
    """Return the library of a wheel, unpacked if it is not there yet."""
    version, build = name.split("-")
    folder = FOLDER / name
    found = list(folder.rglob("libnixl_capi.so"))
    if not found:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--target", str(folder)),
                f"nixl-{build}=={version}",
            ],
            check=True,
            timeout=600,
        )
        found = list(folder.rglob("libnixl_capi.so"))
    return found[0].resolve()


def run(name: str) -> tuple[bool, str]:
    """Run the tests with one wheel; return whether all passed, and the row of the table."""
    version, build = name.split("-")
    environment = os.environ | {"NIXL_CONNECT_LIBRARY": str(library_of(name))}
    try:
        tests = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *CORE],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=MINUTES * 60,
        )
    except subprocess.TimeoutExpired:
        return False, f"| {version} | {build} | not within {MINUTES} minutes | | | |"
    passed, failed, skipped = (
        int(match[1]) if (match := re.search(rf"(\d+) {word}", tests.stdout)) else 0
        for word in ("passed", "failed", "skipped")
    )
    if tests.returncode:
        print(tests.stdout)
    probe = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    loaded = f"LOADED {environment['NIXL_CONNECT_LIBRARY']}"
    if loaded not in probe.stdout.splitlines():
        sys.exit(f"{name} is not what was loaded: {probe.stdout}{probe.stderr}")
    seen = re.search(r"^SEEN (\w+) (\S+)$", probe.stdout, re.MULTILINE)
    told = f"`{seen[1]}`, {seen[2]}" if seen else "nothing"
    row = f"| {version} | {build} | {passed} | {failed} | {skipped} | {told} |"
    print(row, flush=True)
    return tests.returncode == 0 and passed > 400, row


def main() -> int:
    """Run the command line."""
    names = sys.argv[1:] or VERSIONS
    ran = [run(name) for name in names]
    if names == VERSIONS:
        head, rest = PAGE.read_text().split(BEGIN)
        _, tail = rest.split(END)
        lines = [
            "| NIXL | build | tests passed | failed | skipped | a dead peer is told as |",
            "|---|---|---|---|---|---|",
            *(row for _, row in ran),
        ]
        PAGE.write_text(f"{head}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{tail}")
    return 0 if all(good for good, _ in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
