# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The agents of this process: what one of them tells another needs no message.

The list is guarded by a lock of its own, which is taken before a core's and under which no core is
freed: nobody takes it with a core's lock held. A forked child has no agents, and does not look.
"""
