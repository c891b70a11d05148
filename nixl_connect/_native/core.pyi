# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The state that the completion thread shares with others, and what may be done to it.

Nothing here, nor in `record`, `transfer` and `thread`, knows Python.

Ownership. A record is referenced by its Python object and by the core. Passive records live in the
hash table until a notification, a cancellation or the end of their quarantine takes them out.
Active ones belong to the thread that posts them, and then to whoever holds `polling`; only that
owner calls NIXL with their request.

Prepared ones belong to their caller, and are in no list, until they are given up.

Locking. `lock` guards everything that two threads share and is never held across a call into NIXL,
which may take as long as the copy that it does. `polling` is held across such calls, so only the
completion thread ever waits for it. The agent's `progress`, taken last of all, keeps UCX from
noticing a dead peer between the proof that its connection stands and the load that relies on it.
"""
