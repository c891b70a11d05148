# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The native record of one operation: made, counted and freed."""
