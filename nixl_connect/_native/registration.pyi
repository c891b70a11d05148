# Made by "make stubs" from the .pyx file beside it: do not edit.
"""One region that is registered with NIXL, and lists of such."""
