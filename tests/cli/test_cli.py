"""The command line: real runs in processes of their own, and what makes them fail."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from commands import finished

from nixl_connect import cli
from nixl_connect.cli import text
from nixl_connect.cli.demo import (
    command as demo,
)
from nixl_connect.cli.demo import (
    payload as demo_payload,
)
from nixl_connect.cli.demo import (
    plan as demo_plan,
)

DEADLINE = 60
KINDS = {
    ("read", "readable", "a"),
    ("read", "readable", "b"),
    ("write", "writable", "a"),
    ("write", "writable", "b"),
}

# Processes that stand in for the demo's own: modules that the demo's children run.
SIDE = """
import asyncio, functools, os, signal
from nixl_connect.cli.demo import process as demo_process
from nixl_connect.cli.demo.side import LocalSide
from nixl_connect.cli.child import run

class Side(LocalSide):
    {}

def main():
    run(functools.partial(demo_process.work, side_type=Side))
"""
CHANGES_A_BYTE = SIDE.format("""
    async def settle(self, index):
        passive, regions, _ = self._lent
        row = self.operations[index].row
        if row.kind == "write" and row.owner == "a" and regions[0].size > 64 and len(regions) == 1:
            await passive.wait_for_completion(10)
            regions[0][regions[0].size // 2] ^= 1
        return await super().settle(index)
""")
DIES = SIDE.format("""
    async def lend(self, index):
        if self.side == "a" and index > 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().lend(index)
""")
STALLS = SIDE.format("""
    async def settle(self, index):
        await asyncio.Event().wait()
""")
# Tells that it is there by opening a FIFO, which has its end when all who opened it are gone.
WAITS = """
import os
from nixl_connect.cli.child import run

def work(parent):
    os.write(os.open(os.environ["FIFO"], os.O_WRONLY), b"x")

def main():
    run(work)
"""


MAIN = "from nixl_connect.cli import main; sys.exit(main())"


def started(*arguments: str, code: str = MAIN) -> list[str]:
    """Return the command that runs ``nixl-connect`` with the modules that this process has."""
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}", *arguments]


@pytest.fixture
def command(tmp_path):
    """Run ``nixl-connect`` to its end; return its exit status, output and errors."""

    def run(*arguments, code=MAIN, **environment):
        return finished(started(*arguments, code=code), tmp_path, **environment)

    return run


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Have the demo run other processes than its own."""

    def use(source):
        (tmp_path / "nixl_connect_stand_in.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(demo, "PROCESS", "nixl_connect_stand_in")

    return use


# --- demo -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["4KiB", "1048577", "24MiB"])
def test_demo_moves_and_verifies(command, size):
    status, out, err = command("demo", "--size", size, "--seed", "7", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["ok"]
    assert report["error"] is None
    assert report["seed"] == 7
    assert report["hash"] == "sha256"
    assert report["bytes"] == report["requested_bytes"] == text.parse_size(size)
    rows = report["rows"]
    assert report["bytes"] == sum(row["bytes"] for row in rows)
    assert report["seconds"] == pytest.approx(sum(row["seconds"] for row in rows))
    assert all(row["verified"] for row in rows)
    assert all(
        0 < row["fastest_seconds"] <= row["slowest_seconds"] <= row["seconds"] for row in rows
    )
    assert {(row["operation"], row["passive"], row["mover"]) for row in rows} == KINDS
    for kind in KINDS:
        shapes = [row for row in rows if (row["operation"], row["passive"], row["mover"]) == kind]
        assert {row["descriptors_each"] == 1 for row in shapes} == {True, False}
        assert {(row["source"], row["target"]) for row in shapes} in ({("a", "b")}, {("b", "a")})
    assert set(report["first_contact_seconds"]) == {"a", "b"}
    assert report["library"]["path"].endswith("libnixl_capi.so")


def test_demo_prints_a_table(command):
    status, out, err = command("demo", "--size", "1MiB")
    assert (status, err) == (0, "")
    assert "Every byte arrived as it was sent" in out
    table = out.split("Every byte")[0]
    assert table.count("agrees") == 17
    for word in ("readable/read", "writable/write", "a->b", "b->a", "1 MiB", "iB/s"):
        assert word in table
    assert max(map(len, table.splitlines())) <= 80


def test_a_changed_byte_fails_the_demo(stand_in, capsys):
    stand_in(CHANGES_A_BYTE)
    assert cli.main(["demo", "--size", "1MiB", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert report["error"] is None
    wrong = [row for row in report["rows"] if not row["verified"]]
    assert [(row["operation"], row["mover"], row["descriptors_each"]) for row in wrong] == [
        ("write", "b", 1)
    ]
    assert cli.main(["demo", "--size", "1MiB"]) == 1
    out = capsys.readouterr().out
    assert "DIFFER" in out
    assert "FAILED" in out


def test_a_dead_process_fails_the_demo(stand_in, capsys):
    stand_in(DIES)
    assert cli.main(["demo", "--size", "1MiB", "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert not report["ok"]
    assert report["error"] == "process a was killed by SIGKILL"
    assert report["error"] in err


def test_a_stalled_process_fails_the_demo(stand_in, capsys):
    stand_in(STALLS)
    start = time.monotonic()
    assert cli.main(["demo", "--size", "1MiB", "--timeout", "1", "--json"]) == 1
    assert time.monotonic() - start < 15
    assert "did not answer /settle/0 within 1 seconds" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_demo(tmp_path, end):
    (tmp_path / "nixl_connect_stand_in.py").write_text(WAITS)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        # A shell that runs the tests in the background has the signal ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.path.insert(0, {str(tmp_path)!r}); from nixl_connect import cli; "
        "from nixl_connect.cli.demo import command; command.PROCESS = 'nixl_connect_stand_in'; "
        "sys.exit(cli.main())"
    )
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        started("demo", code=code),
        env=os.environ | {"FIFO": str(fifo)},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            seen = b""
            while len(seen) < 2:
                assert select.select([reader], [], [], DEADLINE)[0]
                seen += os.read(reader, 2)
            process.send_signal(end)
            assert select.select([reader], [], [], DEADLINE)[0]
            assert os.read(reader, 1) == b""  # the last one who had it open is gone
            _, err = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            os.close(reader)
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert err == "nixl-connect: interrupted\n"
    else:
        assert process.returncode == -end


@pytest.mark.parametrize("name", ["aiohttp", "rich"])
def test_demo_says_which_extra_is_missing(monkeypatch, capsys, name):
    monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"nixl-connect: this needs {name}: pip install 'nixl-connect[cli]'\n"


def test_demo_without_nixl(command, tmp_path):
    missing = {"NIXL_CONNECT_LIBRARY": str(tmp_path / "missing.so")}
    status, out, err = command("demo", **missing)
    assert (status, out) == (2, "")
    assert err.startswith("nixl-connect: NIXL cannot be loaded: set NIXL_CONNECT_LIBRARY to")
    assert err.count("\n") == 1
    # The same for programs: one document, the demo's own.
    status, out, again = command("demo", "--json", **missing)
    assert (status, again) == (2, err)
    assert f"nixl-connect: {json.loads(out)['error']}\n" == err


def test_errors_for_programs(command):
    """With --json a failure is JSON on the standard output, too."""
    status, out, err = command("perf", "client", "--json", "--port", "1")
    assert status == 1
    assert f"nixl-connect: {json.loads(out)['error']}\n" == err


# --- the rest ---------------------------------------------------------------------------------


def test_digest_sees_every_byte():
    regions = demo_payload.Arena([[1000, 1, 77]]).regions([1000, 1, 77])
    demo_payload.fill(regions, 1, 2)
    sent = demo_payload.digest(regions)
    for region in regions:
        for place in {0, region.size // 2, region.size - 1}:
            region[place] ^= 1
            assert demo_payload.digest(regions) != sent
            region[place] ^= 1
    assert demo_payload.digest(regions) == sent
    demo_payload.fill(regions, 1, 3)
    assert demo_payload.digest(regions) != sent
    demo_payload.clear(regions)
    assert not any(region.any() for region in regions)


@pytest.mark.parametrize("total", [4096, 4097, 99_999, 1 << 30, (5 << 30) + 3])
def test_plan_adds_up(total):
    rows = [row for row in demo_plan.make_rows(total) if row.counted]
    assert sum(row.nbytes for row in rows) == total
    assert all(size > 0 for row in rows for sizes in row.operations for size in sizes)
    assert max(sum(sizes) for row in rows for sizes in row.operations) <= 1 << 28


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("4096", 4096),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        (" 2 kb ", 2048),
        ("0.3", 0),
        ("9007199254740993", (1 << 53) + 1),
        (str(1 << 62), 1 << 62),
        ("4194304TiB", 1 << 62),
    ],
)
def test_sizes(given, size):
    assert text.parse_size(given) == size


@pytest.mark.parametrize("given", [str((1 << 62) + 1), "5000000TiB", "9" * 400, "9" * 5000])
def test_sizes_of_no_memory(given):
    with pytest.raises(ValueError, match="largest"):
        text.parse_size(given)


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1000, "1000 B"), (1536, "1.5 KiB"), (1 << 40, "1 TiB")]
)
def test_bytes_as_text(count, shown):
    assert text.format_bytes(count) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["demo", "--size", "1k"],
        ["demo", "--size", "much"],
        ["demo", "--size", "9" * 400],
        ["demo", "--seed", "-1"],
        ["demo", "--timeout", "0"],
        ["demo", "--timeout", "nan"],
        ["doctor", "--size", "1"],
    ],
    ids=" ".join,
)
def test_misuse(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: nixl-connect" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["demo"], ["doctor"]], ids=str)
def test_help_has_examples(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "exit status:" in out
    assert max(map(len, out.splitlines())) <= 100


def test_version(command):
    import nixl_connect

    status, out, _ = command("--version", code="import runpy; runpy.run_module('nixl_connect')")
    assert (status, out) == (0, f"nixl-connect {nixl_connect.__version__}\n")


def test_imports_are_late(command):
    code = """if True:
        import nixl_connect
        assert not any(name.startswith("nixl_connect.cli") for name in sys.modules)
        from nixl_connect.cli import main, arguments
        from nixl_connect.cli.demo import command
        from nixl_connect.cli.doctor import command
        assert not {"aiohttp", "rich"} & set(sys.modules)
    """
    assert command(code, code="exec(sys.argv[1])") == (0, "", "")
