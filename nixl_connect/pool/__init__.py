"""Registered host memory that is lent and returned: `HostPool` and its leases."""
