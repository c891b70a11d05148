"""Long copies between processes, by threads that let others have the processor in between."""

cdef void take_turn() noexcept nogil
cdef void* replacement_of(const char* function) noexcept nogil
