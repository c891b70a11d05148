"""The error tree: one base, a built-in beside it, and the library's own bugs apart."""

import inspect
import pickle

import pytest

import nixl_connect as nc
from nixl_connect import errors

BUILT_INS = {
    "ArgumentError": [ValueError],
    "ArgumentTypeError": [TypeError],
    "AuthenticationError": [PermissionError],
    "BackendError": [RuntimeError],
    "ClosedError": [RuntimeError],
    "CudaError": [RuntimeError],
    "LibraryError": [ImportError],
    "MetadataError": [ValueError],
    "OperationCancelledError": [RuntimeError],
    "PairingError": [RuntimeError, ValueError],
    "PeerLostError": [ConnectionError, RuntimeError, errors.TransferError],
    "PoolExhaustedError": [TimeoutError],
    "PoolMemoryError": [MemoryError],
    "QuarantineError": [RuntimeError],
    "RegistrationError": [RuntimeError],
    "StateError": [RuntimeError],
    "TransferError": [RuntimeError],
    "TransferTimeoutError": [TimeoutError, RuntimeError, errors.TransferError],
    "WaitTimeoutError": [TimeoutError],
}
ALL = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and item.__module__ == errors.__name__
}


def test_every_error_is_in_the_table():
    assert set(ALL) == {*BUILT_INS, "NixlConnectError", "InternalError"}


@pytest.mark.parametrize("name", BUILT_INS)
def test_derives_from(name):
    assert issubclass(ALL[name], nc.NixlConnectError)
    for built_in in BUILT_INS[name]:
        assert issubclass(ALL[name], built_in)


def test_waits_that_are_late_are_not_failed_transfers():
    """A program that retries failed transfers must not take a wait that ended for one."""
    assert not issubclass(nc.WaitTimeoutError, (nc.TransferError, RuntimeError))


def test_internal_errors_are_apart():
    assert not issubclass(nc.InternalError, nc.NixlConnectError)
    assert not issubclass(nc.InternalError, (ValueError, RuntimeError, OSError))
    assert not any(
        issubclass(item, nc.InternalError) for item in ALL.values() if item is not nc.InternalError
    )


@pytest.mark.parametrize("name", ALL)
def test_public(name):
    assert getattr(nc, name) is ALL[name]
    assert name in nc.__all__
    assert ALL[name].__doc__


@pytest.mark.parametrize("name", ALL)
def test_text_and_pickle(name):
    error = ALL[name]("what happened")
    assert str(error) == "what happened"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "what happened"


@pytest.mark.parametrize(
    "kind", [nc.TransferError, nc.PeerLostError, nc.TransferTimeoutError], ids=lambda k: k.__name__
)
def test_transfer_errors_name_status_and_peer(kind):
    assert (kind("text").status, kind("text").peer) == ("", "")
    copy = pickle.loads(pickle.dumps(kind("text", status="ERR_BACKEND", peer="worker-1")))
    assert (str(copy), copy.status, copy.peer) == ("text", "ERR_BACKEND", "worker-1")
