"""Whether memory is there: asked of the kernel, which looks at its maps and not at the pages."""

from libc.stdint cimport uintptr_t

cpdef bint is_mapped(uintptr_t address, size_t size) noexcept
cpdef bint is_accessible(uintptr_t address, bint written) noexcept
