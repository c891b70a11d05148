"""What runs below operations: a connection with its agent, threads, options and figures.

The engine connects an agent, its completion thread, registrations and peers, begins what operations
ask for, keeps what has ended until it may go, and tells event loops and statistics.
"""
