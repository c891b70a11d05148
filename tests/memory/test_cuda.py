"""Device memory and streams where there is no GPU: on a simulated CUDA driver, and without any."""

import asyncio
import gc
import os
import re
from pathlib import Path

import pytest
from compiling import build
from processes import run_tests

import nixl_connect as nc
from nixl_connect.memory import cuda

HERE = Path(__file__).parents[1]

needs_no_gpu = pytest.mark.skipif(cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """The double of the driver, built."""
    pytest.importorskip("cuda.bindings")
    target = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    return str(build([HERE / "driver" / "cuda.c", HERE / "driver" / "memory.c"], target))


@pytest.mark.timeout(300)
def test_on_a_double_of_the_driver(double):
    run_tests(HERE / "driver", CUDA_DOUBLE=double)


@pytest.mark.timeout(300)
def test_a_rehearsal_of_the_suite_for_gpus(double):
    """That it is ready for a GPU: on the double, with NIXL in memory of the host."""
    path = os.pathsep.join(filter(None, [str(HERE / "rehearsal"), os.environ.get("PYTHONPATH")]))
    ran = run_tests(HERE / "gpu", CUDA_DOUBLE=double, PYTHONPATH=path)
    assert int(re.search(r"(\d+) passed", ran)[1]) >= 55, ran
    # And the documentation's programs, of those that need nothing but the driver.
    ran = run_tests(
        HERE / "docs" / "test_docs.py",
        "-k",
        "receiver and cuda_",
        CUDA_DOUBLE=double,
        PYTHONPATH=path,
    )
    assert "1 passed" in ran, ran


@needs_no_gpu
def test_a_stream_takes_a_driver():
    with pytest.raises(nc.LibraryError, match="nixl-connect\\[cuda"):
        nc.Descriptor((0x1000, 8, "cuda:0"), stream=1)
    with pytest.raises(nc.LibraryError, match="nixl-connect\\[cuda"):
        nc.Descriptor(bytearray(8), stream=1)
    assert nc.Descriptor((0x1000, 8, "cuda:0"), stream=-1).device == nc.Device("cuda:0")


@needs_no_gpu
def test_a_copy_takes_a_driver(connector):
    with nc.HostPool(connector) as pool:
        for _ in range(3):
            with pool.acquire_blocking(8) as lease:
                with pytest.raises(nc.LibraryError, match="nixl-connect\\[cuda"):
                    lease.copy_from_blocking((0x1000, 8, "cuda:0", object()))
                with pytest.raises(nc.LibraryError, match="nixl-connect\\[cuda"):
                    asyncio.run(lease.copy_to((0x1000, 8, "cuda:0", object())))
        gc.collect()
        assert pool.stats()["leases"] == 0


@needs_no_gpu
def test_an_array_of_a_device_takes_a_driver_to_find_the_device():
    class Array:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": (8,),
            "typestr": "<f4",
            "data": (0x1000, False),
            "version": 3,
        }

    with pytest.raises(nc.LibraryError, match="as \\(array, device\\)"):
        nc.Descriptor(Array())
    assert nc.Descriptor((Array(), "cuda:1")).device == nc.Device("cuda:1")
    with pytest.raises(nc.ArgumentError, match="given as cpu"):
        nc.Descriptor((Array(), "cpu"))


@pytest.mark.parametrize("stream", [1.5, "1", b"1", True, object()])
def test_what_is_no_stream(stream):
    with pytest.raises(nc.ArgumentTypeError, match="stream"):
        nc.Descriptor(bytearray(8), stream=stream)


@pytest.mark.parametrize("stream", [-2, 1 << 64])
def test_numbers_that_are_no_stream(stream):
    with pytest.raises(nc.ArgumentError, match="stream"):
        nc.Descriptor(bytearray(8), stream=stream)


@pytest.mark.parametrize("protocol", [(1, 8), (0,), 8, "ab"])
def test_a_malformed_stream_protocol(protocol):
    class Stream:
        def __cuda_stream__(self):
            return protocol

    with pytest.raises((nc.ArgumentError, nc.ArgumentTypeError), match="__cuda_stream__"):
        nc.Descriptor(bytearray(8), stream=Stream())
