"""Looks for memory that overlaps."""

from nixl_connect._native.packing cimport Regions

cpdef object within(Regions rows)
cpdef object between(Regions sources, Regions targets)
