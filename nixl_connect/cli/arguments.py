"""The command line: what it takes, and the help that teaches it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nixl_connect._version import __version__
from nixl_connect.cli import text
from nixl_connect.cli.errors import require_extra

DEFAULT_PORT = 18515
"""Of ``perf``: that of the tools that measure RDMA, as ib_write_bw."""

# How shtab is told that an argument is a file.
_FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}

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
  nixl-connect perf --help         measure the link between two machines
  nixl-connect top                 watch the connectors of running processes

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


_PERF = """\
Measure the link between two processes, of one machine or of two: latency by size, and throughput,
of reads and of writes. One runs the server, the other the client; the client names the server's
host. Metadata goes over one TCP connection between them, the data through NIXL.
"""

_PERF_EPILOG = """\
examples:
  nixl-connect perf server                   on this machine, for clients of this machine
  nixl-connect perf client                   to that server
  nixl-connect perf server --public          for clients of other machines
  nixl-connect perf client HOST --json       for programs
  nixl-connect perf client HOST --plot link.svg --sizes 8,4KiB,1MiB,256MiB
  UCX_TLS=tcp nixl-connect perf ...          on both sides: over TCP, whatever else there is

exit status: 0 success; 1 failure, wrong bytes among them; 2 cannot run as asked; 130 interrupted
"""

_SERVER = """\
Have memory for clients to read from and to write to, until interrupted. Without --public it listens
on the loopback interface, and refuses an address that other machines reach.
"""

_CLIENT = """\
Move bytes from and to a server's memory, one transfer after the other, and print how long that
took. The first transfer of each size is compared, every byte.
"""


_TOP = """\
Show what the connectors of running processes do: operations by phase, throughput, latency, memory,
peers, and operations that are stuck. A process is seen if NIXL_CONNECT_MONITOR=1 is in its
environment, or if it has called nixl_connect.monitor.serve(): it opens a local socket then, for its
user alone.
"""

_TOP_EPILOG = """\
examples:
  nixl-connect top                           all processes of this user, until q
  nixl-connect top 4711                      one process
  nixl-connect top --json --count 1          for programs: one line, of one second
  nixl-connect top | cat                     one page, as plain text

ops/s are of all kinds; moved is what a connector read and wrote, by peers what they read from it
and wrote to it; median and p99 are of its reads and writes, no more than shown.

exit status: 0 success, also when ended by q or Ctrl-C; 1 no process to show; 2 cannot run as asked
"""

_COMPLETION = """\
Print what makes a shell complete the arguments of nixl-connect.
"""

_COMPLETION_EPILOG = """\
examples:
  eval "$(nixl-connect completion bash)"     in ~/.bashrc
  eval "$(nixl-connect completion zsh)"      in ~/.zshrc, after compinit

exit status: 0 success; 2 shtab is not installed
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments. Exits, as argparse does, on ``--help``, ``--version`` and misuse."""
    return _parser().parse_args(argv)


def command(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """Return the function that runs the chosen command."""
    if arguments.command == "demo":
        from nixl_connect.cli import demo

        return demo.run
    if arguments.command == "perf":
        if arguments.side == "server":
            from nixl_connect.cli import perf_server

            return perf_server.run
        require_extra("rich")
        from nixl_connect.cli import perf_client

        return perf_client.run
    if arguments.command == "top":
        require_extra("rich")
        from nixl_connect.cli import top

        return top.run
    if arguments.command == "completion":
        return _print_completion
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
    _add_perf(commands)
    _add_top(commands)
    completion = _teach(
        commands.add_parser,
        _COMPLETION,
        _COMPLETION_EPILOG,
        name="completion",
        help="have a shell complete arguments",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return parser


def _add_top(commands: Any) -> None:
    top = _teach(
        commands.add_parser,
        _TOP,
        _TOP_EPILOG,
        name="top",
        help="watch the connectors of running processes",
    )
    where = top.add_argument(
        "where",
        nargs="?",
        metavar="WHERE",
        help="a process id, a socket, or a folder of sockets (default: this user's)",
    )
    _takes_a_file(where)
    top.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="between looks (default: 1)",
    )
    top.add_argument(
        "--count",
        type=_count,
        metavar="N",
        help="end after so many looks (default: never; 1 for plain text into a pipe)",
    )
    top.add_argument(
        "--stuck",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="list operations that are so old (default: 10)",
    )
    top.add_argument("--json", action="store_true", help="print each look as a line of JSON")


def _print_completion(arguments: argparse.Namespace) -> int:
    require_extra("shtab")
    import shtab

    print(shtab.complete(_parser(), arguments.shell))
    return 0


def _add_perf(commands: Any) -> None:
    perf = _teach(
        commands.add_parser,
        _PERF,
        _PERF_EPILOG,
        name="perf",
        help="measure a link between two processes or machines",
    )
    sides = perf.add_subparsers(dest="side", metavar="SIDE", required=True)
    server = _teach(sides.add_parser, _SERVER, _PERF_EPILOG, name="server", help="have memory")
    client = _teach(sides.add_parser, _CLIENT, _PERF_EPILOG, name="client", help="measure")
    server.add_argument(
        "--host", metavar="ADDRESS", help="where to listen (default: loopback; all with --public)"
    )
    server.add_argument(
        "--public", action="store_true", help="let other machines reach it; see --key-file"
    )
    server.add_argument(
        "--size",
        type=_size,
        default="256MiB",
        metavar="SIZE",
        help="most bytes of a transfer (default: 256MiB)",
    )
    server.add_argument(
        "--json", action="store_true", help="say as JSON where it listens, once it does"
    )
    client.add_argument("host", nargs="?", default="127.0.0.1", help="the server's (default: here)")
    client.add_argument(
        "--sizes",
        type=_sizes,
        metavar="SIZE,...",
        help="bytes of a transfer (default: 8 to 128MiB)",
    )
    client.add_argument(
        "--direction",
        choices=("read", "write", "both"),
        default="both",
        help="read from the server, write to it, or both (default)",
    )
    client.add_argument(
        "--seconds",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="for each size and direction (default: 1)",
    )
    client.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="longest that any one step may take (default: 30)",
    )
    client.add_argument("--json", action="store_true", help="print the figures as JSON")
    plot = client.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them, as SVG, PNG or PDF"
    )
    _takes_a_file(plot)
    for side in (server, client):
        side.add_argument(
            "--port", type=_port, default=DEFAULT_PORT, metavar="N",
            help=f"of the server (default: {DEFAULT_PORT}); 0 for the server: any that is free",
        )  # fmt: skip
        key = side.add_argument(
            "--key-file",
            type=Path,
            metavar="FILE",
            help="a key that both have: metadata without its seal is refused",
        )
        _takes_a_file(key)


def _takes_a_file(action: argparse.Action) -> None:
    action.complete = _FILE  # type: ignore[attr-defined]


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


def _size(given: str) -> int:
    try:
        size = text.parse_size(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size < 1:
        raise argparse.ArgumentTypeError("must be at least 1 byte")
    return size


def _sizes(given: str) -> list[int]:
    return [_size(part) for part in given.split(",")]


def _port(given: str) -> int:
    if not given.isdecimal() or int(given) > 65_535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, not {given!r}")
    return int(given)


def _demo_size(given: str) -> int:
    size = _size(given)
    if size < SMALLEST_DEMO:
        raise argparse.ArgumentTypeError(f"must be at least {SMALLEST_DEMO} bytes, not {given}")
    return size


def _seed(given: str) -> int:
    if not given.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number that is not negative, not {given!r}")
    return int(given)


def _count(given: str) -> int:
    if not given.isdecimal() or not 0 < int(given) < 1 << 31:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {given!r}")
    return int(given)


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {given!r}")
    return seconds
