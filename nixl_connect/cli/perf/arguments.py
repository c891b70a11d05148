"""The arguments of ``nixl-connect perf``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nixl_connect.cli.errors import require_extra
from nixl_connect.cli.parsing import complete_files, seconds, size, teach

DEFAULT_PORT = 18515
"""Port of tools that measure RDMA, such as ib_write_bw."""

_DESCRIPTION = """\
Measure the link between two processes, on one machine or on two.

Measures latency by size, and throughput, of reads and writes. One process runs the server, the
other the client, which is given the server's host. Metadata goes over one TCP connection between
them, the data through NIXL.
"""

_EPILOG = """\
examples:
  nixl-connect perf server                   for clients on this machine
  nixl-connect perf client                   measure with that server
  nixl-connect perf server --public          for clients on other machines
  nixl-connect perf client HOST              from another machine
  UCX_TLS=tcp nixl-connect perf ...          on both sides: over TCP only

exit status: 0 success; 1 failure, including wrong bytes; 2 it cannot run as asked, or something is
not installed; 130 interrupted, but for the server, which runs until then
"""

_SERVER = """\
Offer memory that clients read from and write to, until interrupted.

Without --public, it listens on the loopback interface and refuses addresses that other machines
can reach.
"""

_SERVER_EPILOG = """\
examples:
  nixl-connect perf server                   for clients on this machine
  nixl-connect perf server --public --key-file perf.key
                                             for clients on other machines that have the key
  nixl-connect perf server --port 0 --json   on any free port, which the JSON names

exit status: 0 interrupted; 1 failure; 2 it cannot run as asked, or something is not installed
"""

_CLIENT = """\
Time transfers from and to a server's memory, one after the other.

Each size is a prepared transfer, posted repeatedly and waited for each time: this is the time that
the link and NIXL take. A transfer with an operation of its own takes longer, a small one many times
as long; "nixl-connect demo" times those. Every byte of the first transfer of each size is compared.
"""

_CLIENT_EPILOG = """\
examples:
  nixl-connect perf client                   measure with a server on this machine
  nixl-connect perf client HOST --json       for programs
  nixl-connect perf client HOST --plot link.svg --sizes 8,4KiB,1MiB,256MiB

exit status: 0 success; 1 failure, including wrong bytes; 2 it cannot run as asked, or something is
not installed; 130 interrupted
"""


def add(commands: Any) -> None:
    """Add the command's parsers."""
    perf = teach(
        commands.add_parser,
        _DESCRIPTION,
        _EPILOG,
        name="perf",
        help="measure a link between two processes or machines",
    )
    sides = perf.add_subparsers(dest="side", metavar="SIDE", required=True)
    _add_server(sides)
    _add_client(sides)


def _add_server(sides: Any) -> None:
    server = teach(
        sides.add_parser, _SERVER, _SERVER_EPILOG, name="server", help="offer memory to clients"
    )
    server.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address to listen on (default: loopback; all with --public)",
    )
    server.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"port to listen on, 0 for any free port (default: {DEFAULT_PORT})",
    )
    server.add_argument(
        "--public", action="store_true", help="let other machines reach the server; see --key-file"
    )
    _add_key(server, "a key; clients without it are refused")
    server.add_argument(
        "--size",
        type=size,
        default="256MiB",
        metavar="SIZE",
        help="largest transfer, in bytes (default: 256MiB)",
    )
    server.add_argument(
        "--json", action="store_true", help="once the server listens, print its address as JSON"
    )
    server.set_defaults(run=_run_server)


def _add_client(sides: Any) -> None:
    client = teach(
        sides.add_parser,
        _CLIENT,
        _CLIENT_EPILOG,
        name="client",
        help="time transfers with a server",
    )
    client.add_argument(
        "host", nargs="?", default="127.0.0.1", help="the server's host (default: 127.0.0.1)"
    )
    client.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"the server's port (default: {DEFAULT_PORT})",
    )
    client.add_argument(
        "--sizes",
        type=_sizes,
        metavar="SIZE,...",
        help="bytes per transfer (default: 8 to 128MiB)",
    )
    client.add_argument(
        "--direction",
        choices=("read", "write", "both"),
        default="both",
        help="read from the server, write to it, or both (default)",
    )
    client.add_argument(
        "--seconds",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="time for each size and direction (default: 1)",
    )
    client.add_argument(
        "--timeout",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="longest that any one step may take (default: 30)",
    )
    _add_key(client, "the server's key")
    client.add_argument("--json", action="store_true", help="print the figures as JSON")
    plot = client.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the figures, as SVG, PNG or PDF"
    )
    complete_files(plot)
    client.set_defaults(run=_run_client)


def _add_key(side: argparse.ArgumentParser, what: str) -> None:
    key = side.add_argument("--key-file", type=Path, metavar="FILE", help=what)
    complete_files(key)


def _run_server(arguments: argparse.Namespace) -> int:
    from nixl_connect.cli.perf import server

    return server.run(arguments)


def _run_client(arguments: argparse.Namespace) -> int:
    require_extra("rich")
    from nixl_connect.cli.perf import client

    return client.run(arguments)


def _sizes(given: str) -> list[int]:
    return [size(part) for part in given.split(",")]


def _port(given: str) -> int:
    if not given.isdecimal() or int(given) > 65_535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, not {given!r}")
    return int(given)
