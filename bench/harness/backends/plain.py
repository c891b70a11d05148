"""The library of this repository with a manifest by hand, over plain descriptors."""

from __future__ import annotations

from harness.backends import nixl_connect_
from harness.backends.base import Base


class Backend(nixl_connect_.Backend):
    """What `nixl_connect.arrays` is compared with."""

    version = f"{nixl_connect_.Backend.version}, arrays by hand: kept, registered memory"
    offer_arrays = Base.offer_arrays
    fetch_arrays = Base.fetch_arrays
    forget_arrays = Base.forget_arrays
