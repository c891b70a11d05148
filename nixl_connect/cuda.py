"""The only module that imports cuda-python, when it is first needed."""

from __future__ import annotations

import functools


@functools.cache
def is_available() -> bool:
    """Whether cuda-python is installed and its driver finds a GPU.

    Notes
    -----
    Initialises the driver, which a process must not have done before it forks: ask in the child.
    """
    try:
        from cuda.bindings import driver
    except ImportError:
        return False
    try:
        (result,) = driver.cuInit(0)
        if result != driver.CUresult.CUDA_SUCCESS:
            return False
        result, count = driver.cuDeviceGetCount()
    except RuntimeError:  # cuda-python without libcuda.so
        return False
    return bool(result == driver.CUresult.CUDA_SUCCESS and count > 0)
