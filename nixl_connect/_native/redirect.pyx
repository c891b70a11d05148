"""Leads calls of NIXL and UCX to functions of this package, and nobody else's.

A library calls functions of another by way of words in its memory that the loader has filled with
their addresses, and its relocations say which word is whose. Here those of the functions that
`file_descriptors` and `copying` replace are overwritten, in NIXL's and UCX's own libraries alone.
UCX does the same to everything that is loaded, for the calls that map memory.

It is done again whenever more of them have been loaded: transports are, and UCX's modules. Those
may open devices at once, so `dlopen` is replaced, too.

While another thread loads a library, it is listed already, and its words are still being filled,
on pages that have to be writable for that. So what is listed is looked at only after the loader has
let go of the lock that it holds while it loads.
"""

from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport strcmp, strdup, strlen, strncmp, strrchr

from nixl_connect._native cimport copying, file_descriptors

import os

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <limits.h>
    #include <link.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    #include <unistd.h>

    /* Relocations that have the address of another library's function put into a word. */
    #if defined(__x86_64__) && defined(__LP64__)
    #define NC_FILLS(kind) \
        ((kind) == R_X86_64_JUMP_SLOT || (kind) == R_X86_64_GLOB_DAT || (kind) == R_X86_64_64)
    #elif defined(__aarch64__) && defined(__LP64__)
    #define NC_FILLS(kind) \
        ((kind) == R_AARCH64_JUMP_SLOT || (kind) == R_AARCH64_GLOB_DAT \
         || (kind) == R_AARCH64_ABS64)
    #else
    #define NC_FILLS(kind) 0
    #endif
    #define NC_STORE_WORD(word, address) __atomic_store_n((word), (address), __ATOMIC_RELEASE)

    /* struct dl_phdr_info is there with _GNU_SOURCE only, which Python's headers may come too late
       for. */
    struct nc_object {
        uint64_t base;
        const char* name;
        const ElfW(Phdr)* segments;
        uint16_t segment_count;
        unsigned long long loaded;
        unsigned long long unloaded;
    };
    extern int nc_iterate(int (*)(struct nc_object*, size_t, void*), void*)
        __asm__("dl_iterate_phdr");
    """
    bint FILLS "NC_FILLS"(uint64_t kind) nogil
    void store_word "NC_STORE_WORD"(void** word, void* address) nogil
    ctypedef struct Segment "Elf64_Phdr":
        unsigned int p_type
        uint64_t p_vaddr
        uint64_t p_memsz
    ctypedef union _Value "__typeof__(((Elf64_Dyn*)0)->d_un)":
        uint64_t d_val
    ctypedef struct Entry "Elf64_Dyn":
        long d_tag
        _Value d_un
    ctypedef struct Relocation "Elf64_Rela":
        uint64_t r_offset
        uint64_t r_info
        long r_addend
    ctypedef struct Symbol "Elf64_Sym":
        unsigned int st_name
        uint16_t st_shndx
    struct Object "nc_object":
        uint64_t base
        const char* name
        const Segment* segments
        uint16_t segment_count
        unsigned long long unloaded
    uint64_t ELF64_R_SYM(uint64_t) nogil
    uint64_t ELF64_R_TYPE(uint64_t) nogil
    int PT_DYNAMIC
    int PT_GNU_RELRO
    int DT_NULL
    int DT_SYMTAB
    int DT_STRTAB
    int DT_RELA
    int DT_RELASZ
    int DT_JMPREL
    int DT_PLTRELSZ
    int SHN_UNDEF
    int PATH_MAX
    int RTLD_LAZY
    int PROT_READ
    int PROT_WRITE
    int _SC_PAGESIZE
    int iterate "nc_iterate"(int (*)(Object*, size_t, void*) noexcept nogil, void*) nogil
    void* dlopen(const char* path, int flags) nogil
    int dlclose(void* handle) nogil
    char* realpath(const char* path, char* out) nogil
    int mprotect(void* start, size_t size, int protection) nogil
    long sysconf(int name) nogil

cdef enum:
    MOST_FOLDERS = 4
    # How a look at all libraries may end.
    OVER = 1
    CHANGED = 2                 # something has been unloaded: it has to begin anew

# One look at the libraries that there were when it began.
cdef struct Look:
    size_t count
    unsigned long long unloaded
    size_t position

# What to lead elsewhere. Constant once `set_folders` was called.
cdef char* _folders[MOST_FOLDERS]
cdef int _folder_count = 0
# All below belong to whoever is in `_visit`, which the loader lets in one at a time.
cdef size_t _seen = 0           # objects that need not be looked at again, in the loader's order
cdef unsigned long long _unloaded = 0
cdef size_t _refused = 0        # words that could not be written
cdef size_t _copies_refused = 0  # and those of copies between processes


cdef bint _is_named_so(const char* path) noexcept nogil:
    """Whether a file name is one that NIXL's and UCX's libraries have."""
    cdef const char* name = strrchr(path, c"/")
    name = path if name is NULL else name + 1
    return (
        strncmp(name, b"libnixl", 7) == 0
        or strncmp(name, b"libplugin_", 10) == 0
        or strncmp(name, b"libucm", 6) == 0
        or strncmp(name, b"libucp", 6) == 0
        or strncmp(name, b"libucs", 6) == 0
        or strncmp(name, b"libuct", 6) == 0
    )


cdef bint _is_theirs(const char* path) noexcept nogil:
    """Whether a library is NIXL's or UCX's."""
    cdef char[4096] real
    cdef int i
    if path is NULL or path[0] == 0:
        return False  # the program itself
    if _folder_count == 0:
        return _is_named_so(path)
    if PATH_MAX > sizeof(real) or realpath(path, real) is NULL:
        return False
    for i in range(_folder_count):
        if strncmp(real, _folders[i], strlen(_folders[i])) == 0:
            return True
    return False


cdef void* _replacement_of(const char* function) noexcept nogil:
    cdef void* by
    if strcmp(function, b"dlopen") == 0:
        return <void*>_dlopen
    by = file_descriptors.replacement_of(function)
    return copying.replacement_of(function) if by is NULL else by


cdef bint _write(const Object* object, void** word, void* address) noexcept nogil:
    """Overwrite a word, which the loader may have made read-only."""
    cdef uint64_t page = <uint64_t>sysconf(_SC_PAGESIZE)
    cdef uint64_t at = <uint64_t>word & ~(page - 1)
    cdef uint64_t start
    cdef uint64_t end
    cdef bint guarded = False
    cdef int i
    for i in range(object.segment_count):
        if object.segments[i].p_type == <unsigned int>PT_GNU_RELRO:
            start = object.base + object.segments[i].p_vaddr
            end = (start + object.segments[i].p_memsz) & ~(page - 1)
            guarded = (start & ~(page - 1)) <= at < end
            break
    if guarded and mprotect(<void*>at, page, PROT_READ | PROT_WRITE):
        return False
    store_word(word, address)
    if guarded:
        mprotect(<void*>at, page, PROT_READ)
    return True


cdef void _redirect(
    const Object* object, const Relocation* table, uint64_t size, const Symbol* symbols,
    const char* names
) noexcept nogil:
    """Overwrite the words of one table of relocations."""
    global _refused, _copies_refused
    cdef const Relocation* entry
    cdef const Symbol* symbol
    cdef void** word
    cdef void* address
    cdef uint64_t i
    for i in range(size // sizeof(Relocation)):
        entry = &table[i]
        symbol = &symbols[ELF64_R_SYM(entry.r_info)]
        if symbol.st_shndx != SHN_UNDEF or symbol.st_name == 0:
            continue
        address = _replacement_of(names + symbol.st_name)
        if address is NULL:
            continue
        word = <void**>(object.base + entry.r_offset)
        if FILLS(ELF64_R_TYPE(entry.r_info)) and not entry.r_addend and (
            word[0] is address or _write(object, word, address)
        ):
            continue
        if copying.replacement_of(names + symbol.st_name) is NULL:
            _refused += 1
        else:
            _copies_refused += 1


cdef void _redirect_all(const Object* object) noexcept nogil:
    """Overwrite what one library calls."""
    cdef const Entry* entry = NULL
    cdef uint64_t value
    cdef uint64_t symbols = 0
    cdef uint64_t names = 0
    cdef uint64_t data = 0
    cdef uint64_t data_size = 0
    cdef uint64_t jumps = 0
    cdef uint64_t jumps_size = 0
    cdef int i
    for i in range(object.segment_count):
        if object.segments[i].p_type == <unsigned int>PT_DYNAMIC:
            entry = <const Entry*>(object.base + object.segments[i].p_vaddr)
    while entry is not NULL and entry.d_tag != DT_NULL:
        value = entry.d_un.d_val
        if entry.d_tag == DT_RELASZ:
            data_size = value
        elif entry.d_tag == DT_PLTRELSZ:
            jumps_size = value
        else:
            if value < object.base:
                value += object.base  # a loader that leaves it as it was in the file
            if entry.d_tag == DT_SYMTAB:
                symbols = value
            elif entry.d_tag == DT_STRTAB:
                names = value
            elif entry.d_tag == DT_RELA:
                data = value
            elif entry.d_tag == DT_JMPREL:
                jumps = value
        entry += 1
    if symbols and names and data:
        _redirect(object, <Relocation*>data, data_size, <Symbol*>symbols, <char*>names)
    if symbols and names and jumps:
        _redirect(object, <Relocation*>jumps, jumps_size, <Symbol*>symbols, <char*>names)


cdef int _count(Object* object, size_t size, void* given) noexcept nogil:
    """Count one library."""
    cdef Look* look = <Look*>given
    look.count += 1
    look.unloaded = object.unloaded
    return 0


cdef int _visit(Object* object, size_t size, void* given) noexcept nogil:
    """Look at one library, unless it has been looked at. The loader's lock of its list is held."""
    global _seen, _unloaded
    cdef Look* look = <Look*>given
    if object.unloaded != look.unloaded:
        return CHANGED
    if look.position == look.count:
        return OVER  # the others were listed meanwhile, and may still be loading
    if object.unloaded != _unloaded:
        _unloaded = object.unloaded
        _seen = 0  # what is there now may be in another order
    look.position += 1
    if look.position > _seen:
        _seen = look.position
        if _is_theirs(object.name):
            _redirect_all(object)
    return 0


cdef void _redirect_new() noexcept nogil:
    """Lead the calls of what is new and wholly loaded."""
    cdef Look look
    cdef void* program
    while True:
        look.count = look.position = 0
        iterate(_count, &look)
        # This waits for the loader's lock of loading, which whoever loads holds until the end; the
        # program itself is loaded already.
        program = dlopen(NULL, RTLD_LAZY)
        if program is not NULL:
            dlclose(program)
        if iterate(_visit, &look) != CHANGED:
            return


cdef void* _dlopen(const char* path, int flags) noexcept nogil:
    """Load, and lead the calls of what is new."""
    cdef void* handle
    if path is NULL or path[0] != c"/":
        # Where the loader looks depends on who calls, so this is to be a jump.
        return dlopen(path, flags)
    handle = dlopen(path, flags)
    if handle is not NULL:
        _redirect_new()
    return handle


def set_folders(folders: list[str]) -> None:
    """Say where NIXL's and UCX's libraries are, before `redirect`. A second call does nothing.

    Parameters
    ----------
    folders : list of str
        Real paths of folders that hold nothing else; if none, they are known by their names.
    """
    global _folder_count
    if _folder_count == 0 and len(folders) <= MOST_FOLDERS:
        for i in range(len(folders)):
            free(_folders[i])  # of a call that an exception ended
            _folders[i] = strdup(os.fsencode(folders[i] + "/"))
            if _folders[i] is NULL:
                raise MemoryError
        _folder_count = len(folders)


def redirect() -> int:
    """Lead the calls of what has been loaded so far.

    Returns
    -------
    int
        How many of those that open and close descriptors could not be led elsewhere: that are not
        made in a way that is known here, or whose words the system did not let this process change.
    """
    with nogil:
        _redirect_new()
    return _refused


def copies_refused() -> int:
    """Return how many of those that copy between processes could not."""
    return _copies_refused
