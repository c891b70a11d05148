"""The arguments of ``nixl-connect doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from nixl_connect.cli.parsing import teach

_DESCRIPTION = """\
Report what this machine has, try a transfer, and give advice.

Lists NIXL's library, its plugins and transports, variables, GPUs, RDMA devices, network, shared
memory, permissions and limits. Then moves some bytes between two processes, measures it, and says
what would make transfers faster, or possible, and which command does that. Changes nothing.
"""

_EPILOG = """\
examples:
  nixl-connect doctor                        a report to read
  nixl-connect doctor --json                 for programs; the keys are stable
  UCX_TLS=tcp nixl-connect doctor            what works with TCP alone
  sudo nixl-connect doctor --as alice        whether root and alice reach each other, and how
  NIXL_CONNECT_LIBRARY=/usr/local/lib/libnixl_capi.so nixl-connect doctor
                                             try another NIXL library

exit status: 0 the transfer succeeded; 1 it did not, or NIXL is not installed
"""


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = teach(
        commands.add_parser,
        _DESCRIPTION,
        _EPILOG,
        name="doctor",
        help="report what is here, try a transfer, give advice",
    )
    parser.add_argument(
        "--as",
        dest="user",
        metavar="USER",
        help="try the transfer with a process of another user (as root)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from nixl_connect.cli.doctor import command

    return command.run(arguments)
