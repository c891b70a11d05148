"""Who moves the bytes is missed when its doorbell has gone, and not before two looks say so."""

import os
import socket
import time

import pytest
from doorbells import address, named
from processes import DEADLINE

import nixl_connect as nc
from nixl_connect import OperationStatus

MOVES, TOLD = b"\3", b"\2"


class Doorbell:
    """That of an agent which is nothing else."""

    def __init__(self, connector):
        self.name = os.urandom(16)
        self.connector = connector
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(named(self.name))

    def say(self, message):
        self.socket.sendto(message, address(self.connector))

    def gone(self):
        self.socket.close()


def offered(connector):
    """Return an operation, its key, and who says that it moves its bytes."""
    operation = connector.create_readable_blocking(nc.Descriptor(bytearray(100)))
    return operation, operation.metadata().notification_key.encode(), Doorbell(connector)


def stays(operation, seconds=2.0):
    with pytest.raises(nc.WaitTimeoutError):
        operation.wait_for_completion_blocking(seconds)


def test_one_that_goes(connector):
    operation, key, doorbell = offered(connector)
    doorbell.say(MOVES + doorbell.name + key)
    stays(operation)
    doorbell.gone()
    began = time.monotonic()
    with pytest.raises(nc.PeerLostError, match="has ended"):
        operation.wait_for_completion_blocking(DEADLINE)
    # At the second look: what it said at its end may have been on its way at the first.
    assert time.monotonic() - began > 0.4


def looked_for_once(connector):
    """Offer memory whose mover has gone at the first look; there is yet to be a second."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        operation, key, doorbell = offered(connector)
        began = time.monotonic()
        doorbell.say(MOVES + doorbell.name + key)
        doorbell.gone()
        # Looks for other reasons, such as this deadline, are not the second.
        passing = connector.create_readable_blocking(nc.Descriptor(bytearray(8)), timeout=0.6)
        time.sleep(0.7)
        seen = operation.status, passing.status
        if time.monotonic() - began < 0.95:
            assert seen == (OperationStatus.INITIALIZED, OperationStatus.ERRORED)
            return operation, key
    raise AssertionError("the machine is too busy")


def test_what_comes_after_it_has_gone(connector):
    """The first look finds nobody; then comes what NIXL has had to carry."""
    operation, key = looked_for_once(connector)
    other = Doorbell(connector)
    other.say(TOLD + key)
    other.gone()
    operation.wait_for_completion_blocking(DEADLINE)


def test_one_that_comes_back(connector):
    """Looked for in vain once, another takes up the transfer."""
    operation, key = looked_for_once(connector)
    other = Doorbell(connector)
    other.say(MOVES + other.name + key)
    stays(operation)
    other.gone()
    with pytest.raises(nc.PeerLostError):
        operation.wait_for_completion_blocking(DEADLINE)


def test_who_does_not_know_the_key(connector):
    operation, key, doorbell = offered(connector)
    nobody = os.urandom(16)
    for message in (
        MOVES, MOVES + key, MOVES + nobody, MOVES + nobody[1:] + key, MOVES + nobody + key[:-1],
        MOVES + nobody + key + b"\0", MOVES + nobody + key + bytes(600), MOVES * 600,
    ):  # fmt: skip
        doorbell.say(message)
        time.sleep(0.02)
    doorbell.gone()
    stays(operation)
    operation.cancel()


def test_of_what_has_ended(connector):
    operation, key, doorbell = offered(connector)
    operation.cancel()
    doorbell.say(MOVES + doorbell.name + key)
    doorbell.gone()
    time.sleep(1.2)
    assert operation.status == OperationStatus.CANCELLED


def test_offers_to_many(connector):
    doorbell = Doorbell(connector)
    with connector.create_readable_blocking(nc.Descriptor(bytearray(8)), transfers=2) as operation:
        doorbell.say(MOVES + doorbell.name + operation.metadata().notification_key.encode())
        doorbell.gone()
        stays(operation)
