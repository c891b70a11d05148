"""Arrays with names, shapes and types, moved by one operation: hundreds at once, of any nesting.

One side calls `offer` and sends the message, over any channel; the other calls `fetch` and has the
arrays. Or the one expects arrays, and the other pushes them. Needs nothing but NumPy; arrays of
CuPy, JAX and torch, and the types of ml_dtypes, are taken where these are installed.
"""

from nixl_connect.arrays.fetching import fetch, fetch_blocking
from nixl_connect.arrays.offers import Offer, expect, expect_blocking, offer, offer_blocking
from nixl_connect.arrays.pushing import push, push_blocking

__all__ = [
    "Offer",
    "expect",
    "expect_blocking",
    "fetch",
    "fetch_blocking",
    "offer",
    "offer_blocking",
    "push",
    "push_blocking",
]
