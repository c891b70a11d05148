"""Has every Python take the double for CUDA's driver, and NIXL a device's memory for the host's."""

import ctypes
import os

# cuda-python finds the library by its name among those that are loaded.
ctypes.CDLL(os.environ["CUDA_DOUBLE"])

from nixl_connect.memory import device  # noqa: E402, after the driver

device._VRAM = device._DRAM
