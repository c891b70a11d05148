# Made by "make stubs" from the .pyx file beside it: do not edit.
"""What a notification says, and to which operation: matched by its exact key."""
