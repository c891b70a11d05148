# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Notifications: what peers say of their transfers, matched by its exact key."""
