"""Strict parser and splicer of NIXL's metadata."""

from nixl_connect._native.packing cimport Regions

cpdef bint names(list sections, Regions regions, int mem_type) except -1
cpdef bytes sections_of(bytes blob)
