"""What the commands have in common, and what the documentation says of their options."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nixl_connect.cli import arguments

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
MAIN = f"import sys; sys.path[:] = {sys.path!r}; from nixl_connect.cli import main; main()"


def commands(parser=None, name=""):
    """Yield the name and the parser of each command."""
    parser = parser or arguments.make_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for key, inner in action.choices.items():
                yield from commands(inner, f"{name} {key}".strip())
            return
    yield name, parser


NAMED = dict(commands())


def options(parser):
    return {
        option for action in parser._actions for option in action.option_strings
    } - {"-h", "--help"}  # fmt: skip


def test_there_are_commands():
    assert list(NAMED) == ["demo", "doctor", "perf server", "perf client", "top", "completion"]


@pytest.mark.parametrize("name", NAMED)
def test_help_teaches(name):
    shown = NAMED[name].format_help()
    assert "\nexamples:\n" in shown
    assert f"nixl-connect {name}" in shown.partition("\nexamples:\n")[2]
    assert "\nexit status: 0 " in shown
    assert all(len(line) <= 100 for line in shown.splitlines()), shown
    assert all(action.help for action in NAMED[name]._actions if action.option_strings)
    assert name == "completion" or "--json" in options(NAMED[name])


@pytest.mark.parametrize("name", NAMED)
def test_every_option_is_documented(name):
    section = re.search(
        rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    rows = re.findall(r"^\| `(--[a-z-]+)( [A-Z.,]+)?` \| (.*?) \|", section[1], re.MULTILINE)
    assert {option for option, _, _ in rows} == options(NAMED[name])
    by_option = {o: a for a in NAMED[name]._actions for o in a.option_strings}
    for option, metavar, default in rows:
        action = by_option[option]
        assert bool(metavar) == (action.nargs != 0), option
        if isinstance(action.default, (str, int, float)) and not isinstance(action.default, bool):
            shown = action.default if isinstance(action.default, str) else f"{action.default:g}"
            assert default == shown, option


def complete(*words):
    """Return what bash offers for the last word."""
    script = (
        'eval "$("$1" -c "$2" completion bash)"; shift 2; COMP_WORDS=("$@"); '
        'COMP_CWORD=$(($# - 1)); _shtab_nixl_connect; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    run = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, MAIN, *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=PAGE.parent,
    )
    return set(run.stdout.split())


def test_fish_gets_every_option():
    run = subprocess.run(
        [sys.executable, "-c", MAIN, "completion", "fish"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("complete ")]
    assert all("-c nixl-connect" in line for line in lines)
    for name, parser in NAMED.items():
        own = [line for line in lines if f"_using {name}'" in line]
        assert own, name
        for option in options(parser):
            assert any(re.search(rf"-l {option[2:]}\b", line) for line in own), (name, option)
    assert sum("__fish_complete_path" in line for line in lines) >= 2  # --plot and --key-file


def test_bash_completes():
    assert complete("nixl-connect", "d") == {"demo", "doctor"}
    assert complete("nixl-connect", "perf", "") >= {"server", "client"}
    assert complete("nixl-connect", "demo", "--s") == {"--size", "--seed"}
    assert complete("nixl-connect", "top", "--") >= {"--json", "--stuck", "--interval", "--count"}
    assert complete("nixl-connect", "completion", "z") == {"zsh"}
    assert complete("nixl-connect", "perf", "client", "--plot", "cl") == {"cli.md"}
