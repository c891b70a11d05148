"""Run the sender and the receiver of README.md with the Python that runs this, and check their sum.

Takes what is installed with that Python, NIXL included. Usage: ``python tools/readme.py``.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
EXPECTED = "sum: 499999500000"
DEADLINE = 60


def program(name: str) -> str:
    """Return the program of this name that README.md shows."""
    found = re.search(rf"^```python\n# {name}\n(.*?)^```$", README.read_text(), re.DOTALL | re.M)
    if found is None:
        sys.exit(f"README.md has no program {name}")
    return found[1]


def main() -> int:
    """Run the command line."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sender.py", "receiver.py"):
            Path(folder, name).write_text(program(name))
        sender = subprocess.Popen(
            [sys.executable, "sender.py"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        try:
            receiver = subprocess.run(
                [sys.executable, "receiver.py"],
                cwd=folder,
                stdin=sender.stdout,
                stdout=subprocess.PIPE,
                text=True,
                timeout=DEADLINE,
                check=False,
            )
            ended = sender.wait(DEADLINE)
        finally:
            sender.kill()
            sender.communicate()
    print(receiver.stdout, end="")
    if (receiver.returncode, ended) != (0, 0) or EXPECTED not in receiver.stdout.splitlines():
        print(f"failed: sender {ended}, receiver {receiver.returncode}; not {EXPECTED!r}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
