# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Transfers: started, cancelled, ended.

A transfer is posted without NIXL's own notification. Whoever sees its end tells the peer: the key
when the operation completes, another message when it had been given up.

On one host the key goes to the peer's doorbell. Where there is none, or it is full, it goes through
a second agent, the messenger. NIXL ends each transfer with a flush of the connection, and where a
message went over the same connection before, UCX's flush waits until the peer has seen it: a peer
that naps would hold up the next transfer.

Within a host UCX moves memory by the number of the peer's process, of whoever has it now: that may
be another process, or another program in the same one. So a peer that was met on this host has to
have its doorbell before it is written to, and after it was read.
"""
