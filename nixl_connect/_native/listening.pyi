# Made by "make stubs" from the .pyx file beside it: do not edit.
"""An event loop that listens for its peers by itself.

While a loop waits for operations that peers complete, it has the doorbell in place of the
completion thread: a ring wakes the loop's thread, which then takes the notification. Woken by the
thread it would run a change of threads later, and on a machine with few processors after that
thread has left its own.

The completion thread sleeps meanwhile, and looks now and then: where a ring has found the loop
busy, and where the loop has looked in vain several times, the thread takes the doorbell back.
Blocking waits, and a second loop, leave it to the thread too.
"""
