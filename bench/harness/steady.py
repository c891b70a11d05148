"""Whether idle cost and memory are flat: ``python -m harness.steady [--minutes 10]``.

Minute by minute, on both sides: processor time and memory while one operation waits, after a
thousand cycles that keep everything warm.
"""

from __future__ import annotations

import argparse

from harness.pair import Pair


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.steady", description=__doc__)
    parser.add_argument("--minutes", type=int, default=10, metavar="N", help="10 if not given")
    minutes = parser.parse_args().minutes
    pair = Pair("nixl_connect_")
    try:
        print("minute   passive: CPU, grown    active: CPU, grown")
        for minute in range(1, minutes + 1):
            cycles = pair.run("cycle", {"rounds": 1000, "size": 8, "memory": "fresh"}, 60.0)
            quiet = pair.run("idle", {"seconds": 55.0, "pending": 1}, 90.0)
            cells = [
                f"{(cost['user'] + cost['system']) / 55:8.2%} "
                f"{(cost['grown'] + cycles.cost[side]['grown']) / 1024:8.0f} KiB"
                for side, cost in quiet.cost.items()
            ]
            print(f"{minute:6} {'   '.join(cells)}", flush=True)
    finally:
        pair.close()


if __name__ == "__main__":
    main()
