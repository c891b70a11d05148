"""Two machines: network namespaces with addresses of their own, and TCP between them."""

import json
import subprocess
import sys
import time

import pytest
from commands import client
from documented import ENVIRONMENT
from networks import Network, require_namespaces

pytestmark = pytest.mark.timeout(120)
DEADLINE = 50
SERVER = "10.77.0.1"


@pytest.fixture
def hosts():
    """Two hosts, each with the variables that its processes need."""
    require_namespaces()
    network = Network(2)
    yield [
        (host.prefix, {"UCX_TLS": "tcp", "UCX_NET_DEVICES": ",".join(host.devices)})
        for host in network.hosts
    ]
    network.delete()


def test_http(hosts, program):
    """The documentation's server and client; nothing is on the loopback interface."""
    (there, their_environment), (here, environment) = hosts
    server = subprocess.Popen(
        [*there, *program("server.py"), SERVER, "8080"],
        env=ENVIRONMENT | their_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + DEADLINE
        while True:
            run = subprocess.run(
                [*here, *program("client.py"), f"http://{SERVER}:8080/data"],
                env=ENVIRONMENT | environment,
                check=False,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            # Until the server listens.
            if run.returncode == 0 or time.monotonic() > end or server.poll() is not None:
                break
        assert run.returncode == 0, run.stderr
        assert run.stdout == "sum: 499999500000\n"
    finally:
        server.kill()
        server.communicate(timeout=DEADLINE)


def test_perf(hosts, serve):
    (there, their_environment), (here, environment) = hosts
    _, port = serve(
        "--public", "--host", SERVER, host=SERVER, prefix=there, environment=their_environment
    )
    status, out, err = client(
        SERVER, "--port", port, "--json", "--sizes", "8,1MiB", prefix=here, environment=environment
    )
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["direction"], row["bytes"]) for row in rows] == [
        ("read", 8), ("read", 1 << 20), ("write", 8), ("write", 1 << 20),
    ]  # fmt: skip


def test_that_they_are_apart(hosts):
    """What listens on one's loopback interface is not reached from the other."""
    text = "import socket; s = socket.create_server(('127.0.0.1', 8081)); print('up'); input()"
    server = subprocess.Popen(
        [*hosts[0][0], sys.executable, "-uc", text],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout.readline() == "up\n"
        for prefix, reached in ((hosts[0][0], True), (hosts[1][0], False)):
            run = subprocess.run(
                [*prefix, sys.executable, "-c",
                 "import socket; socket.create_connection(('127.0.0.1', 8081), timeout=5)"],
                check=False, capture_output=True, timeout=DEADLINE,
            )  # fmt: skip
            assert (run.returncode == 0) == reached
    finally:
        server.communicate(timeout=DEADLINE)
