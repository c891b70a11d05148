# Made by "make stubs" from the .pyx file beside it: do not edit.
"""How the completion thread sleeps: on the doorbell, and for as long as nothing is to be done."""
