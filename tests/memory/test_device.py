"""Devices: every way to name one, and what is no name."""

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixl_connect import Descriptor, Device, DeviceKind, NixlConnectError

HOST, CUDA, XPU = DeviceKind.HOST, DeviceKind.CUDA, DeviceKind.XPU


@pytest.mark.parametrize(
    ("given_as", "kind", "number", "wire"),
    [
        ("cpu", HOST, 0, "cpu"),
        ("host", HOST, 0, "cpu"),
        ("CPU", HOST, 0, "cpu"),
        (" cpu\n", HOST, 0, "cpu"),
        ("cuda", CUDA, 0, "cuda:0"),
        ("gpu", CUDA, 0, "cuda:0"),
        ("cuda:0", CUDA, 0, "cuda:0"),
        ("cuda:1", CUDA, 1, "cuda:1"),
        ("gpu:1", CUDA, 1, "cuda:1"),
        ("CUDA:15", CUDA, 15, "cuda:15"),
        ("xpu", XPU, 0, "xpu:0"),
        ("xpu:0", XPU, 0, "xpu:0"),
        ("xpu:3", XPU, 3, "xpu:3"),
        ((HOST, 0), HOST, 0, "cpu"),
        ((HOST, 7), HOST, 0, "cpu"),
        ((CUDA, 0), CUDA, 0, "cuda:0"),
        ((CUDA, 2), CUDA, 2, "cuda:2"),
        ((XPU, 5), XPU, 5, "xpu:5"),
    ],
)
def test_names(given_as, kind, number, wire):
    device = Device(given_as)
    assert device.kind is kind
    assert device.id == number
    assert str(device) == wire
    assert wire in repr(device)


@pytest.mark.parametrize(
    "given_as",
    [
        "",
        " ",
        "cuda:",
        "cuda:-1",
        "cuda:x",
        "cuda:1.5",
        "cuda:1:2",
        "cuda 1",
        "cuda1",
        "cuda:\u0661",
        "cuda:" + "9" * 5000,
        ":1",
        "1",
        "tpu",
        "mps:0",
        "cuda:0\x00",
        "unspecified",
        (CUDA, -1),
        (DeviceKind.UNSPECIFIED, 0),
    ],
    ids=lambda item: repr(item)[:20],
)
def test_bad_values(given_as):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        Device(given_as)
    assert isinstance(caught.value, NixlConnectError)
    named = repr(given_as) if isinstance(given_as, str) else str(given_as[1])
    assert named[:80] in str(caught.value) or "UNSPECIFIED" in str(caught.value)


@pytest.mark.parametrize(
    "given_as",
    [
        0,
        1.5,
        b"cpu",
        ["cpu"],
        (),
        (CUDA,),
        (CUDA, 1, 2),
        (2, 1),
        ("cuda", 1),
        (CUDA, "1"),
        (CUDA, 1.0),
        (CUDA, True),
        (CUDA, None),
        [CUDA, 1],
        HOST,
    ],
    ids=repr,
)
def test_bad_types(given_as):
    with pytest.raises(TypeError) as caught:
        Device(given_as)
    assert isinstance(caught.value, NixlConnectError)
    assert repr(given_as) in str(caught.value)


def test_none():
    with pytest.raises((TypeError, ValueError), match="None"):
        Device(None)


@given(st.sampled_from([HOST, CUDA, XPU]), st.integers(0, 2**64))
def test_whatever_is_accepted_survives_the_wire(kind, number):
    """A device that could be made but not be named would fail where it is sent."""
    try:
        device = Device((kind, number))
    except NixlConnectError:
        assert number > 99_999
        return
    assert Device(str(device)) == device
    sent = Descriptor((4096, 16, device)).metadata
    assert Descriptor.from_serialized(sent).device == device


@given(st.text(max_size=12))
def test_any_text_is_a_device_or_an_error(text):
    try:
        device = Device(text)
    except NixlConnectError:
        return
    assert Device(str(device)) == device


def test_equality_and_hash():
    same = [Device("cuda:1"), Device("gpu:1"), Device((CUDA, 1))]
    assert len(set(same)) == 1
    other = [Device("cpu"), Device("cuda:0"), Device("cuda:1"), Device("xpu:0"), Device("xpu:1")]
    assert len(set(other)) == len(other)
    for one, two in itertools.combinations(other, 2):
        assert one != two
    assert Device("cpu") != "cpu"
    assert Device("cpu") == Device((HOST, 3))


def test_unchangeable():
    with pytest.raises(AttributeError):
        Device("cuda:1").id = 2
    with pytest.raises(AttributeError):
        Device("cuda:1").kind = HOST


@pytest.mark.parametrize("name", ["cpu", "cuda:3", "xpu:1"])
def test_pickle(name):
    assert pickle.loads(pickle.dumps(Device(name))) == Device(name)


def test_kinds():
    assert [(item.name, item.value) for item in DeviceKind] == [
        ("UNSPECIFIED", 0),
        ("HOST", 1),
        ("CUDA", 2),
        ("XPU", 3),
    ]
    assert [str(item) for item in DeviceKind][1:] == ["cpu", "cuda", "xpu"]


def test_nixl_mem_type():
    assert HOST.nixl_mem_type == "DRAM"
    assert CUDA.nixl_mem_type == "VRAM"
    assert XPU.nixl_mem_type == "VRAM"
    with pytest.raises(ValueError, match="UNSPECIFIED"):
        _ = DeviceKind.UNSPECIFIED.nixl_mem_type
