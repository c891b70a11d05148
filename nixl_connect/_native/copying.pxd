"""Long copies between processes, by threads that let others have the processor in between."""

cdef void give_way() noexcept nogil
cdef void* replacement_of(const char* function) noexcept nogil
