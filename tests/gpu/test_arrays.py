"""Named arrays made on a GPU, and those of Ray's actors."""

import numpy as np
import pytest

import nixl_connect as nc
from nixl_connect import arrays

cupy = pytest.importorskip("cupy")

DEADLINE = 20
SAMPLE = {
    "plain": np.arange(600, dtype=np.float32).reshape(20, 30),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4)),
    "scalar": np.array(7.5),
    "empty": np.zeros((0, 5), np.uint8),
    "nested": {"complex": np.arange(9, dtype=np.complex64), "large": np.arange(1 << 20)},
}


def same(got, expected):
    """Whether arrays on the GPU are these of the host, order and type included."""
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[k], expected[k]) for k in expected)
    return (
        isinstance(got, cupy.ndarray)
        and (got.shape, got.dtype) == (expected.shape, expected.dtype)
        and (got.size < 2 or got.flags.f_contiguous == expected.flags.f_contiguous)
        and (got.get() == expected).all()
    )


def on_the_gpu(tree):
    if isinstance(tree, dict):
        return {name: on_the_gpu(value) for name, value in tree.items()}
    return cupy.asarray(tree, order="K")


@pytest.mark.parametrize("where", ["host", "GPU"])
def test_fetched_to_a_device(gpu, where):
    offered = SAMPLE if where == "host" else on_the_gpu(SAMPLE)
    with nc.Connector() as owner, nc.Connector() as reader:
        offer = arrays.offer_blocking(owner, offered)
        got = arrays.fetch_blocking(reader, offer.message(), device="cuda", timeout=DEADLINE)
        offer.wait_blocking(DEADLINE)
    assert same(got, SAMPLE)


def test_fetched_in_part(gpu):
    with nc.Connector() as owner, nc.Connector() as reader:
        offer = arrays.offer_blocking(owner, on_the_gpu(SAMPLE))
        got = arrays.fetch_blocking(
            reader, offer.message(), device="cuda:0", only=["plain"], timeout=DEADLINE
        )
        offer.wait_blocking(DEADLINE)
    assert same(got, {"plain": SAMPLE["plain"]})


def test_fetched_into_arrays_of_a_device(gpu):
    into = {"plain": cupy.zeros((20, 30), np.float32)}
    with nc.Connector() as owner, nc.Connector() as reader:
        offer = arrays.offer_blocking(owner, {"plain": SAMPLE["plain"]})
        arrays.fetch_blocking(reader, offer.message(), into=into, timeout=DEADLINE)
        offer.wait_blocking(DEADLINE)
    assert same(into, {"plain": SAMPLE["plain"]})


def test_pushed_from_a_device(gpu):
    with nc.Connector() as owner, nc.Connector() as writer:
        expected = arrays.expect_blocking(owner, {"plain": ((20, 30), np.float32)})
        mine = {"plain": cupy.asarray(SAMPLE["plain"])}
        arrays.push_blocking(writer, expected.message(), mine, timeout=DEADLINE)
        expected.wait_blocking(DEADLINE)
        assert (expected.arrays["plain"] == SAMPLE["plain"]).all()


def test_what_ray_calls(gpu):
    pytest.importorskip("ray")
    from nixl_connect import ray as transport

    moving = transport._CupyTransport()
    mine = [cupy.arange(1000), cupy.ones((2, 3), order="F")]
    metadata = moving.extract_tensor_transport_metadata("some", mine)
    assert metadata.tensor_device == "cuda"
    nothing = moving.get_communicator_metadata(None, None, "NIXL_CONNECT_CUPY")
    request = moving.fetch_multiple_tensors("some", metadata, nothing)
    got = moving.wait_fetch_complete(request, timeout=DEADLINE)
    assert all(same(x, y.get(order="A")) for x, y in zip(got, mine, strict=True))
    moving.garbage_collect("some", metadata, mine)
