"""Notifications: what peers say of their transfers."""

from nixl_connect._native.core cimport Core

cdef bint poll_notifications(Core* core, bint patient) noexcept nogil
