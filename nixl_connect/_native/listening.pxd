"""An event loop that listens for its peers by itself."""

from nixl_connect._native.agent cimport Agent
from nixl_connect._native.core cimport Core
from nixl_connect._native.waker cimport WakerState

cdef void answer(Core* core, WakerState* loop, Agent agent) noexcept nogil
