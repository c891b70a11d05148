"""The command line: its commands, and the help that teaches them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nixl_connect._version import __version__
from nixl_connect.cli import completion
from nixl_connect.cli.demo import arguments as demo
from nixl_connect.cli.doctor import arguments as doctor
from nixl_connect.cli.parsing import teach
from nixl_connect.cli.perf import arguments as perf
from nixl_connect.cli.top import arguments as top

_DESCRIPTION = """\
Try, diagnose, measure and watch transfers between processes with NVIDIA NIXL.

Start with "nixl-connect doctor", which reports what this machine has and tries a transfer, then
watch "nixl-connect demo" move a gibibyte between two processes and verify every byte.
"""

_EPILOG = """\
examples:
  nixl-connect doctor              what this machine has, whether it works, how to make it faster
  nixl-connect demo --size 64MiB   a short demonstration
  nixl-connect demo --help         what the demonstration does, in detail
  nixl-connect perf --help         measure the link between two machines
  nixl-connect top                 watch the connectors of running processes
  nixl-connect completion --help   set up a shell to complete arguments

exit status: 0 success; 1 failure; 2 it cannot run as asked, or something is not installed, but for
doctor, which is there to say so; 130 interrupted, but for top and perf server, which run until then
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments. Exits, as argparse does, on ``--help``, ``--version`` and misuse.

    Returns
    -------
    argparse.Namespace
        The arguments, and `run`, which carries the command out and returns its exit status.
    """
    return make_parser().parse_args(argv)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = teach(argparse.ArgumentParser, _DESCRIPTION, _EPILOG, prog="nixl-connect")
    parser.add_argument("--version", action="version", version=f"nixl-connect {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (demo, doctor, perf, top):
        command.add(commands)
    completion.add(commands, parser)
    return parser
