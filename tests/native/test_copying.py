"""Lanes let others have the processor between two pieces of a long copy."""

import os
from pathlib import Path

import pytest
from compiling import build

SOURCE = Path(__file__).parent / "copies.c"
# Copied in pieces of half a MiB, by two lanes at most: longer than a lane's turn on any machine.
SIZE = 256 << 20


@pytest.mark.parametrize(("passive", "active"), [("readable", "read"), ("writable", "write")])
def test_a_lane_yields_now_and_then(start_peer, tmp_path, passive, active):
    if "LD_PRELOAD" in os.environ:
        pytest.skip("something else is loaded before all libraries")
    library = build([SOURCE], tmp_path / "libcopies.so")
    copies = tmp_path / "copies"
    owner = start_peer()
    mover = start_peer(environment={"LD_PRELOAD": str(library), "COPIES": str(copies)})
    made = owner.do("passive", kind=passive, sizes=[SIZE])
    moved = mover.do("active", kind=active, metadata=made["metadata"], sizes=[SIZE])
    mover.do("wait", number=moved["id"])
    owner.do("wait", number=made["id"])
    seen = copies.read_text()
    assert seen.count("c") >= SIZE >> 20
    # But not after every piece, which would be a change of threads for each.
    assert 4 <= seen.count("y") < seen.count("c")
