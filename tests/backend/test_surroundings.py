"""What the environment of a container or of sudo may look like: it works, or says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Peer, PeerError, told, until

import nixl_connect as nc

USER = 54321  # one that no passwd names

# Prints "moved", or the error. Whatever is imported later may be out of the user's reach.
MOVE = """
import asyncio, os, selectors, sys, zlib, json, inspect, signal, socket
import numpy, nixl_connect as nc
from nixl_connect import connector, monitor
nc.Connector, nc.Descriptor, nc.RdmaMetadata
exec(sys.argv[1])
source, target = os.urandom(100_000), bytearray(100_000)
try:
    with nc.Connector() as one, nc.Connector() as other:
        with one.create_readable_blocking(nc.Descriptor(source)) as offered:
            read = other.begin_read_blocking(offered.metadata(), nc.Descriptor(target), timeout=20)
            read.wait_for_completion_blocking(20)
    assert source == target
    text = "moved"
except nc.NixlConnectError as error:
    text = f"{type(error).__name__}: {error}"
os.write(int(sys.argv[2]), text.encode())
"""
BECOME = f"os.setgroups([]); os.setresgid(*[{USER}] * 3); os.setresuid(*[{USER}] * 3)"


def run(first="pass", unset=(), cwd="/", prefix=(), **environment):
    """Run `first`, and then move some bytes; return what came of it."""
    environment = {k: v for k, v in os.environ.items() if k not in unset} | environment
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as told_here:
        try:
            done = subprocess.run(
                [*prefix, sys.executable, "-c", MOVE, first, str(writing)],
                check=False,
                cwd=cwd,
                env=environment,
                capture_output=True,
                text=True,
                timeout=50,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
        assert done.returncode == 0, done.stdout + done.stderr
        return told_here.read().decode()


@pytest.fixture
def no_entry(tmp_path):
    """A folder that no other user may enter."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    folder = tmp_path / "no-entry"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def as_user():
    """What makes the process that of another user; skip where that could not see the package."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    libs = Path(nc.__file__).parents[1]
    for folder in (libs, *libs.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            pytest.skip(f"{folder} is not for other users")
    return BECOME


# --- the folder of the user ---------------------------------------------------------------------


def test_no_home():
    assert run(unset=["HOME"]) == "moved"


@pytest.mark.parametrize("home", ["/etc/passwd", "/nonexistent", "", "relative", "/dev/null"])
def test_a_home_that_is_none(home):
    assert run(HOME=home) == "moved"


def test_a_home_that_may_not_be_entered(no_entry, as_user):
    text = run(as_user, HOME=str(no_entry))
    assert text.startswith("BackendError: NIXL cannot start the agent ")
    assert f"{no_entry}/.nixl.cfg, and this process may not (Permission denied)" in text
    assert text.endswith(
        "set HOME to a folder of this user, or `export NIXL_CONFIG_FILE=/dev/null`"
    )


def test_and_what_that_says_helps(no_entry, as_user):
    assert run(as_user, HOME=str(no_entry), NIXL_CONFIG_FILE="/dev/null") == "moved"
    assert run(as_user, HOME="/") == "moved"


def test_a_configuration_that_is_not_there(tmp_path):
    text = run(NIXL_CONFIG_FILE=str(tmp_path / "absent"))
    assert text.startswith("BackendError: ")
    assert "there is no such file: correct or unset it" in text


def test_a_configuration_that_cannot_be_read(tmp_path):
    path = tmp_path / ".nixl.cfg"
    path.write_text("this is = = not TOML\n")
    for environment in ({"NIXL_CONFIG_FILE": str(path)}, {"HOME": str(tmp_path)}):
        text = run(unset=["NIXL_CONFIG_FILE"], **environment)
        assert text.startswith("BackendError: ")
        if sys.version_info >= (3, 11):
            assert f"NIXL cannot read its configuration {path}: " in text


# --- NIXL's telemetry ---------------------------------------------------------------------------


def test_telemetry(tmp_path):
    """NIXL makes a file for each agent, of its name."""
    assert run(NIXL_TELEMETRY_ENABLE="y", NIXL_TELEMETRY_DIR=str(tmp_path)) == "moved"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 4
    assert [name.rpartition(".")[2] for name in names].count("messenger") == 2


def test_telemetry_of_lanes_and_scouts(tmp_path, start_peer):
    """All agents there are."""
    environment = {"NIXL_TELEMETRY_ENABLE": "y", "NIXL_TELEMETRY_DIR": str(tmp_path)}
    peer, other = start_peer(environment=environment), start_peer()
    size = 9 << 20
    made = other.do("passive", kind="readable", sizes=[size], seed=3)
    read = peer.do("active", kind="read", metadata=made["metadata"], sizes=[size])
    peer.do("wait", number=read["id"])
    assert any(".lane1" in path.name for path in tmp_path.iterdir())
    stranger = start_peer()
    gone = stranger.do("passive", kind="readable", sizes=[8])["metadata"]
    stranger.kill()

    def scouted():
        with pytest.raises(PeerError, match="PeerLostError"):
            peer.do("active", kind="read", metadata=gone, sizes=[8])
        return any(".scout" in path.name for path in tmp_path.iterdir())

    until(scouted)  # not before the second time, a moment after the first


@pytest.mark.parametrize("name", ["a/b", "/", "../x", "x" * 512, "/" * 512, "ä/" * 170, "%2F"])
def test_names_that_no_file_has(name, tmp_path, start_peer, content, make_connector):
    """Peers know the worker by its name all the same; it reads, is read, and reads from itself."""
    environment = {"NIXL_TELEMETRY_ENABLE": "y", "NIXL_TELEMETRY_DIR": str(tmp_path)}
    peer: Peer = start_peer(name=name, environment=environment)
    connector = make_connector(f"to {name[:100]}")
    for there in (connector, None):
        made = peer.do("passive", kind="readable", sizes=[5000], seed=7)
        target = bytearray(5000)
        if there is None:  # within the peer
            read = peer.do("active", kind="read", metadata=made["metadata"], sizes=[5000])
            peer.do("wait", number=read["id"])
        else:
            read = there.begin_read_blocking(told(made), nc.Descriptor(target))
            read.wait_for_completion_blocking(20)
            assert read.remote.name == f"{name}-1"
            assert target == content(7, 5000).tobytes()
        peer.do("wait", number=made["id"])
    with connector.create_readable_blocking(nc.Descriptor(content(9, 5000))) as offered:
        metadata = offered.metadata().model_dump()
        read = peer.do("active", kind="read", metadata=metadata, sizes=[5000])
        peer.do("wait", number=read["id"])
        offered.wait_for_completion_blocking(20)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_of_telemetry_that_is_none(tmp_path):
    absent = tmp_path / "absent"
    text = run(NIXL_TELEMETRY_ENABLE="y", NIXL_TELEMETRY_DIR=str(absent))
    assert text.startswith("BackendError: ")
    assert f"NIXL_TELEMETRY_DIR is '{absent}', which is no folder that this process sees" in text


def test_a_folder_of_telemetry_that_may_not_be_written(tmp_path, as_user):
    text = run(as_user, HOME="/", NIXL_TELEMETRY_ENABLE="y", NIXL_TELEMETRY_DIR="/usr")
    assert text.startswith("BackendError: ")
    assert "in which this process may not write" in text


def test_a_folder_of_telemetry_that_may_not_be_seen(no_entry, as_user):
    inside = no_entry / "telemetry"
    inside.mkdir()
    text = run(as_user, HOME="/", NIXL_TELEMETRY_ENABLE="y", NIXL_TELEMETRY_DIR=str(inside))
    assert text.startswith("BackendError: ")
    assert f"NIXL_TELEMETRY_DIR is '{inside}', which is no folder that this process sees" in text


# --- where Python looks -------------------------------------------------------------------------


def test_entries_of_the_search_path(tmp_path, no_entry, as_user):
    """What is no folder, or not for this user, is passed over."""
    packed = tmp_path / "packed.zip"
    packed.write_bytes(b"PK\x05\x06" + bytes(18))
    entries = [str(no_entry), os.fsencode(no_entry), "/absent", "/etc/passwd", "", str(packed)]
    odd = [*entries, b"/absent", 5, None, Path("/tmp"), "/" + "x" * 5000]
    become = f"{as_user}; import pathlib; PosixPath = pathlib.PosixPath; sys.path[:0] = {odd!r}"
    assert run(become, HOME="/") == "moved"


def test_a_library_out_of_reach(no_entry, as_user):
    text = run(as_user, HOME="/", NIXL_CONNECT_LIBRARY=str(no_entry / "libnixl_capi.so"))
    assert text.startswith("LibraryError: NIXL cannot be loaded: set NIXL_CONNECT_LIBRARY ")


# --- all the rest -------------------------------------------------------------------------------


def test_a_user_that_nobody_knows(as_user):
    assert run(as_user, unset=["USER", "LOGNAME"], HOME="/") == "moved"


def test_no_folder_for_temporary_files():
    assert run(TMPDIR="/nonexistent") == "moved"


def test_a_working_folder_that_is_gone(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    assert run(f"os.rmdir({str(gone)!r})", cwd=gone) == "moved"


@pytest.mark.parametrize("who", ["root", "user"])
def test_files_that_nobody_may_touch(who, request):
    """As an umask of 0777 makes them."""
    become = request.getfixturevalue("as_user") if who == "user" else "pass"
    assert run(f"os.umask(0o777); {become}", HOME="/") == "moved"


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1], [0, 1, 2]])
def test_closed_standard_streams(closed):
    """No socket gets their numbers, now or when peers connect."""
    look = (
        f"[os.close(number) for number in {closed}]; import atexit; "
        "atexit.register(lambda: os.write(int(sys.argv[2]), str(["
        f"os.readlink('/proc/self/fd/%d' % number) for number in {closed}]).encode()))"
    )
    assert run(look) == "moved" + str(["/dev/null"] * len(closed))


def test_programs_that_are_started_find_closed_streams_closed():
    look = (
        "os.close(0); import atexit, subprocess; atexit.register(lambda: os.write("
        "int(sys.argv[2]), str(subprocess.call(['sh', '-c', 'test -e /proc/self/fd/0'], "
        "close_fds=False)).encode()))"
    )
    assert run(look) == "moved1"
