"""Provokes the errors of docs/howto/troubleshooting.md: the page has the texts that users see."""

import ast
import re

import pytest
from pages import ROOT, pattern
from provoked import memory, metadata, starting, transfers
from provoked.lab import Lab, cases

import nixl_connect as nc

PAGE = ROOT / "docs" / "howto" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.*)`$", PAGE.read_text(), re.MULTILINE)
CASES = [case for of in (starting, memory, metadata, transfers) for case in cases(of)]

# What is not provoked here, and where else it is, or why not.
ELSEWHERE = {
    "BackendError: NIXL … lays out its metadata in a way that this version of nixl-connect does "
    "not know: …": "takes another NIXL: test_scripted.py",
    "PeerLostError: peer … is gone": "depends on when its end is seen: test_scout.py",
    "TransferTimeoutError: another thread did not finish in time to connect peer …": (
        "takes a host that does not answer: test_adversity.py, test_network.py"
    ),
    "TransferTimeoutError: a prepared transfer with peer … did not end in time": (
        "takes a peer that is stopped, over TCP: test_prepared.py"
    ),
    "TransferError: … moved its data, but the peer could not be told": "test_scripted.py",
    "TransferError: … failed: local memory is … (NIXL: …)": "takes a hole: test_mapped.py",
    "TransferError: … failed (NIXL: …)": "takes a fault of NIXL: test_scripted.py",
    "TransferError: NIXL refused the transfer with peer …": "test_scripted.py",
    "ArgumentError: data: … is not memory of a CUDA device": "takes a driver: tests/driver",
    "ArgumentError: data: … is memory of the host, not of …": "tests/driver",
    "ArgumentError: data: … bytes from … leave their allocation, which ends after …": (
        "tests/driver"
    ),
    "CudaError: the stream is being captured in a graph: no end to wait for": "tests/driver",
    "CudaError: the work on a descriptor's stream failed: …": "tests/driver",
    "TransferTimeoutError: the work on the descriptors' streams was not done within … s": (
        "tests/driver"
    ),
    "StateError: a signal handler or a finalizer has interrupted its thread while that …: it "
    "cannot use the connector for this now; leave it to a task or to another thread": (
        "takes a moment within a call: test_signals.py"
    ),
    "TransferError: the descriptors name memory of this connector that is not registered; the "
    "operation that they are from has ended": "test_within.py",
    "NIXL keeps … registered: …": "logged: test_scripted.py",
    "letting go was interrupted, and is tried again: …": "logged: test_reaper.py",
    "…: transfers did not end in time; their memory stays": "logged: test_scripted.py",
    "…: large transfers hold up others: …": "logged: test_lanes.py",
}


@pytest.fixture
def lab(make_connector, start_peer):
    return Lab(make_connector, start_peer)


@pytest.mark.parametrize(("heading", "case"), CASES)
def test_text(lab, heading, case):
    assert heading in HEADINGS
    with pytest.raises(Exception) as caught:  # noqa: PT011, which one is what is tested
        case(lab)
    assert pattern(heading).fullmatch(f"{type(caught.value).__name__}: {caught.value}")


def test_each_heading_is_provoked_or_accounted_for():
    assert len(HEADINGS) == len(set(HEADINGS))
    assert set(HEADINGS) == {case.values[0] for case in CASES} | set(ELSEWHERE)


def test_every_error_has_a_heading():
    """But those that say no more than their base."""
    kinds = {heading.partition(":")[0] for heading in HEADINGS}
    assert set(nc.errors.__dict__) & kinds >= {
        name
        for name, value in vars(nc.errors).items()
        if isinstance(value, type) and name not in {"NixlConnectError", "InternalError"}
    }


def _texts():
    """Return the texts in the library's sources, with … for what is put in."""
    for path in (ROOT / "nixl_connect").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                yield "".join(p.value if isinstance(p, ast.Constant) else "…" for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub("%[sd]", "…", node.value)


@pytest.mark.parametrize("heading", ELSEWHERE)
def test_text_of_what_is_not_provoked(heading):
    text = re.sub(r"^\w+Error: ", "", heading).removesuffix(" (NIXL: …)").strip("… :")
    assert any(pattern(text).search(known) for known in _texts()), text
