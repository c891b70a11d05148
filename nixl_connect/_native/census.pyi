# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Which operations there are, and what became of those that ended: for statistics and reports."""
