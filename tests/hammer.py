"""Many threads and event loops do everything at once with the same connectors. Run by test_soak.py.

    python hammer.py --seconds 20 --threads 16 --loops 4

Each picks at random: whole transfers, blocking and on a loop, of one array and of many, whose bytes
are compared; offers to many, and parts of them; operations that are cancelled, dropped, or left to
their deadline; prepared transfers; transfers within one connector, whose sides end in any order;
figures and reports; forks; and connectors that are closed while others use them. Prints how often
each was done, as JSON. What is not expected ends it with a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from hammering import MOST_HELD, PATIENCE, Hammer, Worker
from holding import held


def main() -> None:
    """Run the threads, and print what they did."""
    parser = argparse.ArgumentParser(prog="hammer.py")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    hammer = Hammer(options.seconds)

    def guarded(call: Any) -> None:
        try:
            call()
        except BaseException:
            hammer.failed = True
            traceback.print_exc()

    threads = []
    for i in range(options.threads + options.loops):
        worker = Worker(hammer, options.seed * 1000 + i)
        call = worker.run
        if i >= options.threads:

            def call(worker: Worker = worker) -> None:
                asyncio.run(worker.run_on_loop())

        threads.append(threading.Thread(target=guarded, args=(call,), daemon=True))
    for thread in threads:
        thread.start()
    most = 0
    for thread in threads:
        while thread.is_alive() and time.monotonic() < hammer.end + 2 * PATIENCE:
            thread.join(0.1)
            most = max(most, *(held(connector)["operations"] for connector in hammer.pair))
        if thread.is_alive():
            import faulthandler

            faulthandler.dump_traceback()
            sys.exit("a thread hangs")
    end = time.monotonic() + 10
    while any(any(held(connector).values()) for connector in hammer.pair):
        gc.collect()
        if time.monotonic() > end:
            for connector in hammer.pair:
                print(*connector.operations(), sep="\n", file=sys.stderr)
            sys.exit("operations are left")
        time.sleep(0.01)
    assert most < MOST_HELD, most
    for connector in (*hammer.pair, hammer.mortal):
        connector.close_blocking()
    print(json.dumps(hammer.counts | {"connectors": hammer.mortals, "held": most}))
    sys.exit(1 if hammer.failed else 0)


if __name__ == "__main__":
    main()
