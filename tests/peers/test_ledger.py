"""What is loaded of a peer over one connection, and what of new metadata is not."""

import pytest

from nixl_connect._native.envelope import Section
from nixl_connect.peers import ledger as module
from nixl_connect.peers.ledger import Ledger, Verdict, names_none

LIMIT = 1 << 16
# As UCX writes them: no domain; two without a part; one with a part of four bytes.
NOTHING = bytes(9)
EMPTY = (0b101).to_bytes(8, "little") + b"\0" + b"\0\0" + b"\xff"
NUMBERED = (0b1).to_bytes(8, "little") + b"\0" + b"\x04" + b"abcd" + b"\xff"
EVERYTHING = (0, 2**64 - 1, 0)


def section(*regions, mem_type=0):
    return Section("UCX", mem_type, list(regions))


def load(ledger, *sections, limit=LIMIT):
    """Load what is missing; return the verdict and how many regions that was."""
    verdict, missing = ledger.compare(sections, limit)
    ledger.note(missing)
    return verdict, sum(len(item.regions) for item in missing)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (NOTHING, True),
        (EMPTY, True),
        (EMPTY[:-1], True),  # as older versions of UCX write it
        (NUMBERED, False),
        (EMPTY[:10], False),
        (b"\xff" * 20, False),
        (bytes(8), False),
        (b"", False),
    ],
)
def test_which_keys_name_no_memory(key, expected):
    assert names_none(key) is expected


def test_a_key_that_names_no_memory_is_loaded_once():
    ledger = Ledger()
    assert ledger.compare([section((64, 8, 0, EMPTY), (128, 8, 0, EMPTY))], LIMIT) == (
        Verdict.NEW,
        [section((*EVERYTHING, EMPTY))],
    )
    assert load(ledger, section((64, 8, 0, EMPTY), (128, 8, 0, EMPTY))) == (Verdict.NEW, 1)
    for start in range(1 << 20, 1 << 24, 4097):
        assert load(ledger, section((start, start, 0, EMPTY)), limit=1) == (Verdict.KNOWN, 0)
    assert ledger.regions == 1
    # Another one might be mistaken for it.
    assert load(ledger, section((64, 8, 0, NOTHING)))[0] is Verdict.CONFLICT
    assert load(ledger, section((64, 8, 0, NUMBERED)))[0] is Verdict.CONFLICT
    assert load(ledger, section((64, 8, 0, EMPTY), (128, 8, 0, NOTHING)))[0] is Verdict.CONFLICT


def test_each_device_and_backend_has_its_own():
    ledger = Ledger()
    assert load(ledger, section((64, 8, 0, EMPTY))) == (Verdict.NEW, 1)
    assert load(ledger, section((64, 8, 0, EMPTY), (64, 8, 1, EMPTY))) == (Verdict.NEW, 1)
    other = Section("OTHER", 0, [(64, 8, 0, EMPTY)])
    assert load(Ledger(), other, section((64, 8, 0, EMPTY))) == (Verdict.NEW, 2)


def test_memory_of_devices_is_loaded_region_by_region():
    ledger = Ledger()
    assert load(ledger, section((64, 8, 0, EMPTY), mem_type=1)) == (Verdict.NEW, 1)
    assert load(ledger, section((72, 8, 0, EMPTY), mem_type=1)) == (Verdict.NEW, 1)
    assert load(ledger, section((64, 8, 0, EMPTY), mem_type=1)) == (Verdict.KNOWN, 0)


def test_two_keys_in_the_first_metadata_are_loaded_region_by_region():
    ledger = Ledger()
    first = section((64, 8, 0, EMPTY), (128, 8, 0, NOTHING))
    assert load(ledger, first) == (Verdict.NEW, 2)
    assert load(ledger, first) == (Verdict.KNOWN, 0)
    assert load(ledger, section((256, 8, 0, EMPTY))) == (Verdict.NEW, 1)
    assert load(ledger, section((132, 2, 0, EMPTY)))[0] is Verdict.CONFLICT


def test_ranges_of_one_key_never_conflict():
    """However many there are, each over all others."""
    ledger = Ledger()
    for rounds in range(5):
        regions = [(4096 + 4000 * rounds + i, 1 << 40, 0, NUMBERED) for i in range(4000)]
        assert load(ledger, section(*regions)) == (Verdict.NEW, 4000)
        assert load(ledger, section(*regions)) == (Verdict.KNOWN, 0)
    changed = NUMBERED.replace(b"abcd", b"abce")
    assert load(ledger, section((5000, 1, 0, changed)))[0] is Verdict.CONFLICT
    assert load(ledger, section((1 << 41, 1, 0, changed))) == (Verdict.NEW, 1)


def test_a_key_of_another_form_needs_another_connection():
    ledger = Ledger()
    assert load(ledger, section((64, 8, 0, NUMBERED))) == (Verdict.NEW, 1)
    longer = (0b11).to_bytes(8, "little") + b"\0" + b"\x04abcd\x01a" + b"\xff"
    assert load(ledger, section((640, 8, 0, longer)))[0] is Verdict.CONFLICT
    other = Ledger()
    other.trust(ledger)
    assert load(other, section((64, 8, 0, longer))) == (Verdict.NEW, 1)


def test_the_limit(keys_name_memory):
    """Of one metadata as many as there are; later ones no more than the limit."""
    ledger = Ledger()
    assert load(ledger, section(*((i, 1, 0, EMPTY) for i in range(1, 9))), limit=4) == (
        Verdict.NEW,
        8,
    )
    assert load(ledger, section((100, 1, 0, EMPTY)), limit=4)[0] is Verdict.FULL
    assert load(ledger, section((4, 1, 0, EMPTY)), limit=4) == (Verdict.KNOWN, 0)
    assert load(ledger, section((100, 1, 0, EMPTY)), limit=9) == (Verdict.NEW, 1)
    assert not module.names_none(EMPTY)
