# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The doorbell: how peers on one host say "look now", and tell each other what has ended.

NIXL has nothing to wait on: a notification is seen when somebody looks, and a small transfer may
wait for that too. So an agent has a datagram socket in the abstract namespace, named after the
agent, on which its completion thread, or an event loop, sleeps. Who begins a transfer with it sends
one byte there, and where it takes long whose doorbell to look for meanwhile; who has ended one
sends a byte and the notification key. There it is as good as by NIXL: the kernel has queued it, or
says that it has not, and then NIXL sends it, with a byte here that it has come. A byte alone is a
hint: lost or forged, it makes a thread look for a moment; and a key that nobody waits for is no
more. The kernel says who rang. Another user's rings that bring nothing are soon not listened to.
Those of the same user always are, if up to a millisecond late while others flood: a peer may need
this side's look for transfers of which no notification tells.
Peers on other hosts, or in other network namespaces, have no socket of that name, and nothing is
sent.

The name is a digest of the agent's name and of how it is reached, so no other agent has it. The
socket ends with the agent, and with its process: an exec closes it, and a forked child does not
have it. So as long as it is there, a peer on this host is who it was when it was met.
"""
