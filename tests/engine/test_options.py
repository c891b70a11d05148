"""The options of a connector: checked where they are given, before anything is opened."""

import math

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect.wire.auth import Seal

KEY = b"0123456789abcdef"
DURATIONS = ["seal_lifetime", "timeout", "quarantine", "drain", "progress_interval"]
LIMITS = ["max_descriptors", "max_metadata_bytes", "max_peer_regions"]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, 2000])
def test_durations(name, value):
    assert getattr(nc.Connector(**{name: value})._options, name) == value


@pytest.mark.parametrize("value", [1e-9, 1e-7, 0.00099])
def test_progress_intervals_that_would_spin(value):
    with pytest.raises(ValueError, match="progress_interval"):
        nc.Connector(progress_interval=value)


@pytest.mark.parametrize("value", [0, -1, 2.9, math.nan, math.inf])
def test_silences_that_no_mover_could_break(value):
    """Who moves bytes speaks every second."""
    with pytest.raises(nc.ArgumentError, match="peer_silence"):
        nc.Connector(peer_silence=value)


def test_silences():
    assert nc.Connector()._options.peer_silence == 0
    assert nc.Connector(peer_silence=3)._options.peer_silence == 3
    for value in ("3", True, [3]):
        with pytest.raises(nc.ArgumentTypeError, match="peer_silence"):
            nc.Connector(peer_silence=value)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf])
def test_bad_durations(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        nc.Connector(**{name: value})
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [None, "1", b"1", True, 1j, [1], float], ids=repr)
def test_durations_of_other_types(name, value):
    with pytest.raises(TypeError, match=name) as caught:
        nc.Connector(**{name: value})
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize("name", [name for name in DURATIONS if name != "timeout"])
@pytest.mark.parametrize("value", [math.inf, 1e300])
def test_durations_without_end(name, value):
    """Only a timeout may be infinite; elsewhere no clock could count so far."""
    with pytest.raises(ValueError, match=name) as caught:
        nc.Connector(**{name: value})
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 1e12])
def test_no_timeout(make_connector, timeout):
    buffer = bytearray(8)
    connector = make_connector(timeout=timeout)
    with connector.create_readable_blocking(nc.Descriptor(buffer)) as operation:
        with pytest.raises(nc.WaitTimeoutError):
            operation.wait_for_completion_blocking(0.05)
        assert operation.status is nc.OperationStatus.INITIALIZED


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [1, 2**40])
def test_limits(name, value):
    assert getattr(nc.Connector(**{name: value})._options, name) == value


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_other_integers(name):
    assert getattr(nc.Connector(**{name: np.int64(7)})._options, name) == 7


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1])
def test_bad_limits(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        nc.Connector(**{name: value})
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [None, 1.0, math.inf, "1", True], ids=repr)
def test_limits_of_other_types(name, value):
    with pytest.raises(TypeError, match=name) as caught:
        nc.Connector(**{name: value})
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize(
    ("backends", "plugins"),
    [
        (["UCX"], {b"UCX": {}}),
        (("UCX", "POSIX"), {b"UCX": {}, b"POSIX": {}}),
        ("UCX", {b"UCX": {}}),
        ({"UCX": {}}, {b"UCX": {}}),
        ({"UCX": {"num_workers": "2"}}, {b"UCX": {b"num_workers": b"2"}}),
    ],
)
def test_backends(backends, plugins):
    assert nc.Connector(backends=backends)._options.plugins == plugins


@pytest.mark.parametrize("backends", [[], (), {}], ids=repr)
def test_no_backends(backends):
    with pytest.raises(ValueError, match="backends") as caught:
        nc.Connector(backends=backends)
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize(
    "backends",
    [
        None,
        5,
        [5],
        [None],
        [["UCX"]],
        [b"UCX"],
        {"UCX": None},
        {"UCX": []},
        {"UCX": {"num_workers": 2}},
        {"UCX": {1: "2"}},
        {5: {}},
    ],
    ids=repr,
)
def test_backends_of_other_types(backends):
    with pytest.raises(TypeError, match="backends") as caught:
        nc.Connector(backends=backends)
    assert isinstance(caught.value, nc.NixlConnectError)


def test_unknown_backend(make_connector):
    """NIXL is asked, and the text says what there is."""
    with pytest.raises(nc.BackendError, match=r"'NO_SUCH'.*UCX"):
        make_connector(backends=["NO_SUCH"])._open()


def test_keys():
    assert nc.Connector()._options.seal is None
    assert isinstance(nc.Connector(keys=KEY)._options.seal, Seal)
    assert isinstance(nc.Connector(keys=[KEY, KEY[::-1]])._options.seal, Seal)


@pytest.mark.parametrize("keys", [b"", b"short", [], [KEY, b"short"]], ids=repr)
def test_bad_keys(keys):
    with pytest.raises(ValueError, match="keys") as caught:
        nc.Connector(keys=keys)
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize(
    "worker_id", ["", "a" * 513, "a\nb", "a\0b", "\ud800", "\u200b"], ids=ascii
)
def test_bad_names(worker_id):
    with pytest.raises(ValueError, match="worker_id") as caught:
        nc.Connector(worker_id)
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize("worker_id", [5, b"name", ["name"], True], ids=repr)
def test_names_of_other_types(worker_id):
    with pytest.raises(TypeError, match="worker_id") as caught:
        nc.Connector(worker_id)
    assert isinstance(caught.value, nc.NixlConnectError)


@pytest.mark.parametrize(
    "worker_id", ["a", "worker 1", "a|b:c/d", "\u0434\u4e16\U0001f980", "w" * 512]
)
def test_names(make_connector, worker_id):
    """Every accepted name is one that NIXL takes and gives back."""
    connector = make_connector(worker_id)
    assert connector.name == worker_id
    assert connector._open().name.startswith(worker_id)


def test_random_names():
    names = {nc.Connector().name for _ in range(100)}
    assert len(names) == 100


def test_positional_options():
    with pytest.raises(TypeError):
        nc.Connector("name", KEY)


def test_unknown_option():
    with pytest.raises(TypeError, match="quarantene"):
        nc.Connector(quarantene=1)
