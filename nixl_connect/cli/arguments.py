"""The command line: what it takes, and the help that teaches it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

from nixl_connect._version import __version__
from nixl_connect.cli import text

# The demo's plan needs room for each of its shapes.
SMALLEST_DEMO = 4096

_DESCRIPTION = """\
Move memory between processes with NVIDIA NIXL: see it work, and see what it works with.

Start with "nixl-connect doctor", which says what this machine has and tries a transfer, then watch
"nixl-connect demo" move a gibibyte between two processes and verify every byte.
"""

_EPILOG = """\
examples:
  nixl-connect doctor              what is here, does it work, what would make it faster
  nixl-connect demo --size 64MiB   a short demonstration
  nixl-connect demo --help         what the demonstration does, in detail

exit status: 0 success, 1 failure, 2 cannot run as asked, 130 interrupted
"""

_DEMO = """\
Start two processes, "a" and "b", that trade the metadata of operations over HTTP on the loopback
interface and move memory both ways: each reads from the other and writes to the other, with one
descriptor and with many, small and large. The data goes from memory to memory through NIXL; HTTP
carries metadata only.

Each transfer has content of its own. Its SHA-256 is taken in the source before the transfer and in
the target after it, and the two must agree. Times are taken by the process that moves the data,
from begin_read or begin_write to completion; filling, hashing and HTTP are not in them. Buffers are
registered once, before the first transfer.
"""

_DEMO_EPILOG = """\
examples:
  nixl-connect demo                          1 GiB in total
  nixl-connect demo --size 64MiB             less
  nixl-connect demo --json > result.json     for programs
  UCX_TLS=tcp nixl-connect demo              the same over TCP, as between two machines

exit status: 0 all bytes agree; 1 some differ, a process died or a step took too long; 2 something
is not installed
"""

_DOCTOR = """\
Say what is here: NIXL's library, its plugins and transports, GPUs, RDMA devices, network, shared
memory, permissions and limits. Then move some bytes between two processes, measure it, and say in
words what would make transfers faster. Changes nothing.
"""

_DOCTOR_EPILOG = """\
examples:
  nixl-connect doctor                        for people
  nixl-connect doctor --json                 for programs; the keys are stable
  UCX_TLS=tcp nixl-connect doctor            what is left with TCP alone
  NIXL_CONNECT_LIBRARY=/usr/local/lib/libnixl_capi.so nixl-connect doctor
                                             try a NIXL of your own

exit status: 0 the transfer succeeded; 1 it did not, or NIXL is not installed
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments. Exits, as argparse does, on ``--help``, ``--version`` and misuse."""
    return _parser().parse_args(argv)


def command(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """Return the function that runs the chosen command."""
    if arguments.command == "demo":
        from nixl_connect.cli import demo

        return demo.run
    from nixl_connect.cli import doctor

    return doctor.run


def _parser() -> argparse.ArgumentParser:
    parser = _teach(argparse.ArgumentParser, _DESCRIPTION, _EPILOG, prog="nixl-connect")
    parser.add_argument("--version", action="version", version=f"nixl-connect {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = _teach(
        commands.add_parser,
        _DEMO,
        _DEMO_EPILOG,
        name="demo",
        help="move memory between two processes and verify every byte",
    )
    demo.add_argument(
        "--size",
        type=_demo_size,
        default="1GiB",
        metavar="SIZE",
        help="bytes to move in total, such as 64MiB (default: 1GiB)",
    )
    demo.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="what the content follows from, not negative (default: 0)",
    )
    demo.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="longest that any one step may take (default: 60)",
    )
    demo.add_argument("--json", action="store_true", help="print the result as JSON")

    doctor = _teach(
        commands.add_parser,
        _DOCTOR,
        _DOCTOR_EPILOG,
        name="doctor",
        help="say what is here, try a transfer, advise",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def _teach(
    make: Callable[..., argparse.ArgumentParser], description: str, epilog: str, **options: str
) -> argparse.ArgumentParser:
    return make(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )


def _demo_size(given: str) -> int:
    try:
        size = text.parse_size(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size < SMALLEST_DEMO:
        raise argparse.ArgumentTypeError(f"must be at least {SMALLEST_DEMO} bytes, not {given}")
    return size


def _seed(given: str) -> int:
    if not given.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number that is not negative, not {given!r}")
    return int(given)


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {given!r}")
    return seconds
