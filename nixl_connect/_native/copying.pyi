# Made by "make stubs" from the .pyx file beside it: do not edit.
"""Long copies between processes, by threads that let others have the processor in between.

UCX copies between processes piece by piece, each in one system call, for as long as it takes. A
kernel that lets nobody interrupt a thread before its next tick has whoever wakes meanwhile wait for
that, 4 ms where there are 250 ticks a second: event loops, where all processors copy. So UCX's
calls are led here by `redirect`, and a lane's thread yields between two pieces, now and then.

Nothing is shared: each thread has a word of its own.
"""
