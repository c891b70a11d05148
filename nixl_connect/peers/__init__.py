"""What is known of other processes, and what of this one is known to them.

Who a peer is and whether it lives, what of its memory was loaded (the ledgers), the lanes and
messages to it, and the registrations of this process's memory that peers may use.
"""
