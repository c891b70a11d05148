# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Notifications that NIXL has for this side."""
