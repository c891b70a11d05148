# Made by "make stubs" from the .pyx file beside it: do not edit.
"""The completion thread: one per connection. It polls NIXL for all who do not do so themselves.

It takes notifications, looks at the transfers in flight, posts those that were too large for their
caller's thread, and keeps deadlines. When an operation ends it hands the waits to their wakers and
the record to a list, from which Python collects.
"""
