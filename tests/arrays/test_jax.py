"""Arrays of JAX on the host."""

import numpy as np
import pytest
from moving import moved

import nixl_connect as nc
from nixl_connect import arrays as named

jax = pytest.importorskip("jax")

TYPES = ["float32", "int8", "bool", "complex64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def row(dtype):
    how = "buffer protocol" if dtype == "float32" else "`__dlpack__`"
    does = pytest.mark.protocol("JAX", how, "host", "sent; read-only")
    return pytest.param(dtype, marks=does if dtype in ("float32", "bfloat16") else ())


@pytest.mark.parametrize("dtype", [row(dtype) for dtype in TYPES])
def test_jax_arrays_can_be_sent(dtype):
    array = jax.numpy.arange(1000).astype(dtype)
    descriptor = nc.Descriptor(array)
    assert descriptor.ptr == array.unsafe_buffer_pointer()
    assert descriptor.size == array.nbytes
    target = np.zeros(1000 * array.itemsize, np.uint8)
    moved(array, target)
    assert (target == np.asarray(array).view(np.uint8)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_arrays_cannot_be_received_in(dtype):
    """They never change; what JAX has computed from one may be used instead of its bytes."""
    descriptor = nc.Descriptor(jax.numpy.zeros(10, dtype))
    assert descriptor.is_readonly
    with nc.Connector() as connector, pytest.raises(nc.ArgumentError, match="read-only"):
        connector.create_writable_blocking(descriptor)


def test_jax_arrays_with_names():
    """Their types and shapes arrive; nothing is fetched into them."""
    arrays = {"x": jax.numpy.arange(6, dtype="bfloat16").reshape(2, 3), "y": jax.numpy.ones(())}
    with (
        nc.Connector() as owner,
        nc.Connector() as mover,
        named.offer_blocking(owner, arrays, transfers=None) as offer,
    ):
        got = named.fetch_blocking(mover, offer.message())
        for name, array in arrays.items():
            assert got[name].dtype == array.dtype
            assert got[name].shape == array.shape
            assert (got[name] == np.asarray(array)).all()
        with pytest.raises(nc.ArgumentError, match="read-only"):
            named.fetch_blocking(mover, offer.message(), into=arrays)


def test_a_layout_of_jax_itself():
    """Its items are not in C order, and what NumPy is shown of it is a copy."""
    layouts = pytest.importorskip("jax.experimental.layout")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    try:
        form = layouts.Format(layouts.Layout(major_to_minor=(1, 0)), device)
    except (AttributeError, TypeError):  # older JAX has other names
        layout = layouts.DeviceLocalLayout(major_to_minor=(1, 0))
        form = layouts.Layout(layout, device)
    array = jax.device_put(jax.numpy.arange(6.0).reshape(2, 3), form)
    assert np.asarray(array).strides == (4, 8)
    with nc.Connector() as owner, nc.Connector() as mover:
        with pytest.raises(nc.ArgumentError, match=r"numpy\.asarray"):
            named.offer_blocking(owner, {"x": array})
        with named.offer_blocking(owner, {"x": np.asarray(array)}) as offer:
            got = named.fetch_blocking(mover, offer.message())["x"]
    assert (got == np.asarray(array)).all()
