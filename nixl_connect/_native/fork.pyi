# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Whether this process is still the one that made something.

A forked child inherits memory, but no thread, and locks that may stay locked for ever. What must
not be used in a child remembers the generation in which it was made.
"""
