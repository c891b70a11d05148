"""The documentation's programs for NATS: "make test-fleets" installs what they need."""

import importlib.util
import os
import shutil
import socket
import subprocess
import time

import pytest

pytestmark = pytest.mark.timeout(300)
DEADLINE = 60
# Set by "make test-fleets": then what is missing is a failure.
REQUIRED = "FLEETS" in os.environ


def need(name):
    if importlib.util.find_spec(name) is None and not REQUIRED:
        pytest.skip(f"{name} is not installed")


@pytest.fixture
def nats_server(tmp_path):
    """A NATS server on a free port of the loopback interface; its URL."""
    need("nats")
    found = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if found is None:
        # Debian's, without installing it.
        if not REQUIRED:
            pytest.skip("no nats-server")
        for command in (
            ["apt-get", "download", "--quiet", "nats-server"],
            ["sh", "-c", "dpkg-deb --extract nats-server*.deb ."],
        ):
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=DEADLINE)
        (found,) = map(str, tmp_path.glob("usr/*bin/nats-server"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [found, "--addr", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(DEADLINE)


def test_nats(nats_server, program, start_program):
    server = start_program([*program("nats_server.py"), nats_server], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    for _ in range(3):
        client = start_program(
            [*program("nats_client.py"), nats_server],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, error = client.communicate(timeout=DEADLINE)
        assert (client.returncode, output) == (0, "sum: 499999500000\n"), error
