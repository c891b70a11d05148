"""The command ``nixl-connect completion``: makes a shell complete arguments."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from nixl_connect.cli.errors import require_extra
from nixl_connect.cli.parsing import teach

_DESCRIPTION = """\
Print a script that makes a shell complete the arguments of nixl-connect.
"""

_EPILOG = """\
examples:
  eval "$(nixl-connect completion bash)"     in ~/.bashrc
  eval "$(nixl-connect completion zsh)"      in ~/.zshrc, after compinit
  nixl-connect completion fish > ~/.config/fish/completions/nixl-connect.fish
                                             in a folder that fish makes when it starts first

exit status: 0 success; 2 shtab is not installed
"""


def add(commands: Any, whole: argparse.ArgumentParser) -> None:
    """Add the command's parser to that of the whole."""
    parser = teach(
        commands.add_parser,
        _DESCRIPTION,
        _EPILOG,
        name="completion",
        help="print a completion script for a shell",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))
    parser.set_defaults(run=partial(_run, whole), json=False)


def _run(whole: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    require_extra("shtab")
    import shtab

    print(shtab.complete(whole, arguments.shell))
    return 0
