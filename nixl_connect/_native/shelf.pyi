# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Registrations, found by what they hold: to be used under their registry's locks."""
