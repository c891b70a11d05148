"""Descriptors: their registrations, their slices, and what pools do with them."""

import ctypes
import gc
import sys
import weakref

import numpy as np
import pytest
from processes import until
from together import run_together

import nixl_connect as nc
from nixl_connect._native import envelope
from nixl_connect.memory.device import HOST
from nixl_connect.wire.codec import decode_nixl_metadata


@pytest.fixture
def connection(connector):
    return connector._open()


def count(connector):
    return connector.stats()["registrations"]["count"]


# --- registered -----------------------------------------------------------------------------------


def test_descriptor(connector, connection):
    descriptor = nc.Descriptor(np.zeros(100, np.uint8))
    assert not descriptor.is_registered
    for _ in range(2):  # again does nothing
        descriptor.register_with_connector(connection)
        assert descriptor.is_registered
        assert connector.stats()["registrations"] == {"count": 1, "bytes": 100}
    for _ in range(2):
        descriptor.deregister_with_connector(connection)
        assert not descriptor.is_registered
        assert connector.stats()["registrations"] == {"count": 0, "bytes": 0}
    descriptor.register_memory(connector)
    assert descriptor.is_registered
    assert count(connector) == 1


def test_arguments_that_it_does_not_take_leave_nothing_to_finalize(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with pytest.raises(TypeError, match="device"):
        nc.Descriptor(b"abc", device="cuda")
    gc.collect()
    assert not seen


def test_register_memory_opens_the_connector(make_connector):
    connector = make_connector()
    descriptor = nc.Descriptor(bytearray(8))
    descriptor.register_memory(connector)
    assert descriptor.is_registered
    assert connector.stats()["registrations"]["bytes"] == 8


def test_shrunk_descriptor_stays_covered(connector, connection):
    """A pool makes a large descriptor as small as one item, and large again."""
    descriptor = nc.Descriptor(np.zeros(4096, np.uint8))
    descriptor.register_with_connector(connection)
    descriptor._data_size = 100
    assert descriptor.is_registered
    with connector.create_readable_blocking(descriptor) as operation:
        metadata = operation.metadata()
        assert metadata.descriptors[0].size == 100
        assert connector.stats()["registrations"] == {"count": 1, "bytes": 4096}
    descriptor._data_size = 4096
    assert descriptor.is_registered
    assert connector.stats()["registrations"] == {"count": 1, "bytes": 4096}


def test_descriptor_registered_while_shrunk(connector, connection):
    """The registration covers the memory, not the item of the moment."""
    descriptor = nc.Descriptor(np.zeros(4096, np.uint8))
    descriptor._data_size = 100
    descriptor.register_with_connector(connection)
    descriptor._data_size = 4096
    assert descriptor.is_registered
    assert connector.stats()["registrations"]["bytes"] == 4096


def test_slices_of_a_registered_array_cost_nothing(connector, connection):
    array = np.zeros((8, 1024), np.uint8)
    whole = nc.Descriptor(array)
    whole.register_with_connector(connection)
    rows = [nc.Descriptor(row) for row in array]
    with connector.create_readable_blocking(rows) as operation:
        assert count(connector) == 1
        assert all(row.is_registered for row in rows)
        # What a peer needs to know is the one region.
        blob = decode_nixl_metadata(operation.metadata().nixl_metadata, 65_536)
        sections = envelope.parse(blob).sections
        assert [row[:2] for item in sections for row in item.regions] == [(whole.ptr, whole.size)]
    assert count(connector) == 1


def test_other_connection(make_connector):
    one, other = make_connector()._open(), make_connector()._open()
    descriptor = nc.Descriptor(bytearray(8))
    descriptor.register_with_connector(one)
    for attempt in (descriptor.register_with_connector, descriptor.deregister_with_connector):
        with pytest.raises(nc.RegistrationError, match=other.name) as caught:
            attempt(other)
        assert isinstance(caught.value, RuntimeError)
    assert descriptor.is_registered
    descriptor.deregister_with_connector(one)
    descriptor.register_with_connector(other)
    assert descriptor.is_registered


def test_two_connections_may_hold_the_same_memory(make_connector):
    buffer = bytearray(8)
    connectors = [make_connector(), make_connector()]
    descriptors = [nc.Descriptor(buffer) for _ in connectors]
    for descriptor, connector in zip(descriptors, connectors, strict=True):
        descriptor.register_memory(connector)
    descriptors[0].deregister_with_connector(connectors[0]._open())
    assert [item.is_registered for item in descriptors] == [False, True]


def test_after_the_connector_closed(make_connector):
    """A buffer of a closed connector is free for the next one."""
    connector = make_connector()
    descriptor = nc.Descriptor(bytearray(8))
    connection = connector._open()
    descriptor.register_with_connector(connection)
    connector.close_blocking()
    assert not descriptor.is_registered
    other = make_connector()
    descriptor.register_memory(other)
    assert descriptor.is_registered
    descriptor.deregister_with_connector(other._open())


def test_closed_connection(make_connector):
    connector = make_connector()
    connection = connector._open()
    connector.close_blocking()
    descriptor = nc.Descriptor(bytearray(8))
    with pytest.raises(nc.ClosedError):
        descriptor.register_with_connector(connection)
    with pytest.raises(nc.ClosedError):
        descriptor.register_memory(connector)
    descriptor.deregister_with_connector(connection)
    assert not descriptor.is_registered


def test_dropped_descriptor_is_deregistered(connector, connection):
    """By the next who comes by, not on the thread of the finalizer."""
    buffer = bytearray(8)
    descriptor = nc.Descriptor(buffer)
    descriptor.register_with_connector(connection)
    del descriptor
    nc.Descriptor(bytearray(1)).register_with_connector(connection)
    assert not connection._engine.registers((*address_of(buffer), 0), HOST.mem_type)
    buffer.append(1)  # nothing holds it any more


def address_of(buffer):
    export = ctypes.c_char.from_buffer(buffer)
    return ctypes.addressof(export), len(buffer)


@pytest.mark.parametrize("given_as", [None, 5, "connection", nc.Connection], ids=repr)
def test_no_connection(given_as, connector):
    descriptor = nc.Descriptor(bytearray(8))
    for attempt in (
        descriptor.register_with_connector,
        descriptor.deregister_with_connector,
        descriptor.register_memory,
    ):
        with pytest.raises(TypeError, match="Connect") as caught:
            attempt(given_as)
        assert isinstance(caught.value, nc.NixlConnectError)
    with pytest.raises(TypeError):
        descriptor.register_with_connector(connector)
    assert not descriptor.is_registered


def test_threads_that_register_one_descriptor(connector, connection):
    """Registered once, whoever was first: deregistering once undoes it."""
    for _ in range(30):
        descriptor = nc.Descriptor(bytearray(4096))
        run_together(4, lambda item=descriptor: item.register_with_connector(connection))
        assert descriptor.is_registered
        run_together(4, lambda item=descriptor: item.deregister_with_connector(connection))
        assert count(connector) == 0


# --- slices ---------------------------------------------------------------------------------------


def test_a_slice_shares_its_parents_registration(connector, connection):
    memory = np.arange(1000, dtype=np.uint8)
    whole = nc.Descriptor(memory)
    early = whole.slice(0, 10)
    assert not early.is_registered
    whole.register_with_connector(connection)
    part = whole.slice(100, 50)
    assert (part.ptr, part.size, part.device) == (whole.ptr + 100, 50, whole.device)
    assert part._data_ref is memory
    assert part.is_registered
    with connector.create_readable_blocking([part, early, part.slice(10, 5)]):
        assert connector.stats()["registrations"] == {"count": 1, "bytes": 1000}
    assert connector.stats()["registrations"]["count"] == 1
    # It lasts as long as a part of it.
    del whole, early
    gc.collect()
    assert part.is_registered
    operation = connector.create_readable_blocking(part.slice(1, 2))
    del part
    gc.collect()
    assert connector.stats()["registrations"]["count"] == 1
    operation.cancel()
    del operation
    until(lambda: connector.stats()["registrations"]["count"] == 0, collect=True)


@pytest.mark.parametrize(
    ("offset", "length", "error"),
    [
        (0, 0, nc.ArgumentError),
        (0, 101, nc.ArgumentError),
        (100, 1, nc.ArgumentError),
        (-1, 5, nc.ArgumentError),
        (1 << 70, 5, nc.ArgumentError),
        (5, -1, nc.ArgumentError),
        (1.0, 5, nc.ArgumentTypeError),
        (0, "5", nc.ArgumentTypeError),
        (True, 5, nc.ArgumentTypeError),
    ],
)
def test_slices_that_cannot_be(offset, length, error):
    with pytest.raises(error):
        nc.Descriptor(bytearray(100)).slice(offset, length)


def test_a_slice_keeps_what_its_parent_knows():
    whole = nc.Descriptor(b"0123456789")
    assert whole.slice(2, 3).is_readonly
    held = bytearray(100)
    part = nc.Descriptor(held).slice(10, 20)
    with pytest.raises(BufferError):
        held.append(0)
    del part
    held.append(0)


# --- what pools do with a descriptor --------------------------------------------------------------


def test_data_size():
    descriptor = nc.Descriptor(np.zeros(64, np.uint8))
    assert descriptor._data_size == 64
    descriptor._data_size = 16
    assert descriptor._data_size == descriptor.size == descriptor.metadata.size == 16
    assert "16" in str(descriptor)
    descriptor._data_size = 64
    assert descriptor.size == descriptor.metadata.size == 64


@pytest.mark.parametrize("size", [0, -1, 65, 2**64])
def test_data_size_out_of_range(size):
    descriptor = nc.Descriptor(np.zeros(64, np.uint8))
    with pytest.raises(ValueError, match="size") as caught:
        descriptor._data_size = size
    assert isinstance(caught.value, nc.NixlConnectError)
    assert descriptor.size == 64


@pytest.mark.parametrize("size", [None, "16", 16.0, True], ids=repr)
def test_data_size_of_other_types(size):
    descriptor = nc.Descriptor(np.zeros(64, np.uint8))
    with pytest.raises(TypeError, match="size") as caught:
        descriptor._data_size = size
    assert isinstance(caught.value, nc.NixlConnectError)
    assert descriptor.size == 64


def test_attributes_are_read_only():
    descriptor = nc.Descriptor(bytearray(8))
    for name in ("ptr", "size", "device", "is_registered", "metadata", "_data_ref"):
        with pytest.raises(AttributeError):
            setattr(descriptor, name, None)


def test_serialized():
    descriptor = nc.Descriptor((4096, 16, "cuda:1"))
    assert descriptor.metadata.model_dump() == {"device": "cuda:1", "ptr": 4096, "size": 16}
    copy = nc.Descriptor.from_serialized(descriptor.metadata)
    assert (copy.ptr, copy.size, copy.device) == (4096, 16, nc.Device("cuda:1"))
    with pytest.raises(TypeError) as caught:
        nc.Descriptor.from_serialized({"device": "cpu", "ptr": 1, "size": 1})
    assert isinstance(caught.value, nc.NixlConnectError)


def test_text():
    text = repr(nc.Descriptor((4096, 16, "cuda:1")))
    assert all(part in text for part in ("Descriptor", "0x1000", "16", "cuda:1"))


class Owner(bytearray):
    """Memory with attributes."""


class Array(np.ndarray):
    """An array with attributes."""


@pytest.mark.parametrize("make", [lambda: Owner(64), lambda: np.zeros(64).view(Array)])
def test_memory_that_has_its_own_descriptor_is_collected(make):
    memory = make()
    memory.descriptor = nc.Descriptor(memory)
    memory.part = memory.descriptor.slice(8, 8)
    alive = weakref.ref(memory)
    del memory
    gc.collect()
    assert alive() is None


class Made(nc.Descriptor):
    """One of a program's own."""

    def __init__(self, data, name):
        super().__init__(data)
        self.name = name


def test_a_subclass(connector):
    memory = bytearray(b"0123456789")
    made = Made(memory, "mine")
    part = made.slice(2, 3)
    assert (made.name, made.size, type(part), part.size) == ("mine", 10, Made, 3)
    assert weakref.ref(made)() is made
    into = bytearray(10)
    with connector.create_readable_blocking(made) as offered:
        connector.begin_read_blocking(
            offered.metadata(), Made(into, "yours")
        ).wait_for_completion_blocking(60)
    assert into == memory
    with pytest.raises(TypeError, match="missing"):
        Made(memory)


def test_one_that_was_not_made(connector):
    """A subclass that does not call `__init__` has no memory."""
    empty = nc.Descriptor.__new__(nc.Descriptor)
    with pytest.raises(AttributeError):
        connector.create_readable_blocking(empty)


def test_made_again(connector, connection):
    """By calling `__init__` once more: it is of the new memory alone."""
    one, two = bytearray(10), bytearray(20)
    descriptor = nc.Descriptor(one)
    descriptor.__init__(two)
    assert descriptor.size == descriptor.metadata.size == 20
    one.clear()  # it is exported no more
    with pytest.raises(BufferError):
        two.clear()
