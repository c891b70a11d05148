"""Notifications: what peers say of their transfers."""

from nixl_connect._native.core cimport Core

cdef void poll_notifications(Core* core) noexcept nogil
