"""Reads many descriptors as rows."""

cpdef object of_list(list items)
