# ruff: noqa: E501, what stands there is quoted
"""Mutants of the native code: the module, what stands there, what shall, and which tests look.

Each takes out, or turns round, one thing that a promise rests on.
"""

from __future__ import annotations

from typing import NamedTuple

LIFE = "operations/test_lifecycle whole/test_scripted whole/test_life_played"
MANY = "operations/test_offers_to_many whole/test_life_played"
MOVERS = "native/test_movers peers/test_movers"
BELL = "native/test_bell native/test_direct peers/test_gone"
RANGES = "native/test_ranges peers/test_ledger"
ENVELOPE = "native/test_envelope wire/test_codec"
REGISTERED = "peers/test_registrations memory/test_blocks operations/test_lifecycle"
FIGURES = "engine/test_statistics cli/test_cli_top"


class Mutant(NamedTuple):
    """A change of one module; `was` stands there once."""

    module: str
    was: str
    now: str
    tests: str


MUTANTS = [
    # Which status may follow which.
    Mutant(
        "status",
        "(1 << COMPLETE) | (1 << CANCELLED) | (1 << ERRORED),\n    0,",
        "(1 << COMPLETE) | (1 << CANCELLED) | (1 << ERRORED),\n    (1 << ERRORED),",
        "native/test_status",
    ),
    Mutant(
        "status",
        "if to < UNINITIALIZED or to > ERRORED",
        "if to < UNINITIALIZED",
        "native/test_status",
    ),
    Mutant("status", "return status >= COMPLETE", "return status > COMPLETE", LIFE),
    # The end of an operation.
    Mutant(
        "core",
        "    if is_final(read_status(&record.status)):\n        return False\n    # Before",
        "    # Before",
        LIFE,
    ),
    Mutant("core", "if record.exposed and record.quarantine > 0:", "if False:", LIFE),
    Mutant(
        "core", "if record.exposed and record.quarantine > 0:", "if record.quarantine > 0:", LIFE
    ),
    Mutant(
        "core",
        "    record.reason = reason\n    record.error = error",
        "    record.error = error",
        LIFE,
    ),
    Mutant("core", "core.waiting -= 1", "pass", FIGURES + " " + LIFE),
    Mutant(
        "core",
        "if core.sleepers:\n        pthread_cond_broadcast(&core.ended)\n    if record.kept",
        "if record.kept",
        "operations/test_threads operations/test_lifecycle operations/test_durations",
    ),
    Mutant(
        "core",
        "if record.kept:\n        core.poked = True",
        "if False:\n        core.poked = True",
        "operations/test_keep",
    ),
    Mutant(
        "core",
        "core.next_deadline = min(core.next_deadline, record.deadline)\n        rouse_soon",
        "rouse_soon",
        LIFE,
    ),
    Mutant(
        "core",
        "memcmp(link[0].key, key, size) == 0",
        "True",
        "operations/test_transfer native/test_direct operations/test_lifecycle",
    ),
    Mutant(
        "core",
        "not core.stopping and (core.passive_count",
        "(core.passive_count",
        "operations/test_closing operations/test_threads",
    ),
    Mutant("core", "core.buckets[h & (core.bucket_count - 1)]", "core.buckets[0]", LIFE),
    # What is made of a notification.
    Mutant(
        "delivery",
        "if is_final(read_status(&record.status)):\n        return  # it is in quarantine",
        "if False:\n        return  # it is in quarantine",
        MANY,
    ),
    Mutant(
        "delivery",
        "if record.tainted or record.kind == WRITABLE:",
        "if record.kind == WRITABLE:",
        MANY,
    ),
    Mutant("delivery", "if record.tainted or record.kind == WRITABLE:", "if record.tainted:", MANY),
    Mutant("delivery", "record.tainted = record.tainted or broken", "pass", MANY),
    Mutant("delivery", "if record.done == record.transfers:", "if record.done >= 1:", MANY),
    Mutant(
        "delivery",
        "status, reason = CANCELLED, REASON_PEER_CANCELLED",
        "status, reason = ERRORED, REASON_PEER_FAILED",
        LIFE,
    ),
    Mutant("delivery", "        broken = True\n", "        broken = False\n", LIFE),
    Mutant(
        "delivery",
        "        take_out(core, record)\n        finish(core, record, status, reason, 0)",
        "        finish(core, record, status, reason, 0)",
        LIFE,
    ),
    Mutant("delivery", "if gone and record.doubted:", "if gone:", MOVERS),
    Mutant("delivery", "record.transfers != 1 or is_final", "is_final", MOVERS),
    Mutant(
        "delivery",
        "size > MOVES_PREFIX_SIZE and memcmp(message, MOVES_PREFIX, MOVES_PREFIX_SIZE) == 0",
        "False",
        MOVERS + " whole/test_silence",
    ),
    # The active side.
    Mutant(
        "transfer",
        "claimed = record.claimed = not is_final(read_status(&record.status))",
        "claimed = record.claimed = True",
        LIFE,
    ),
    Mutant(
        "transfer",
        "lingers = rc != NIXL_SUCCESS and rc != GONE and record.posted",
        "lingers = False",
        LIFE,
    ),
    Mutant("transfer", "if not told or _is_lost(record):", "if _is_lost(record):", LIFE),
    Mutant(
        "transfer",
        "elif read_status(&record.status) == CANCELLED:\n            told = _tell(core, record, CANCELLED_PREFIX, CANCELLED_PREFIX_SIZE)",
        "elif False:\n            pass",
        LIFE,
    ),
    Mutant(
        "transfer",
        "told = _tell(core, record, BROKEN_PREFIX, BROKEN_PREFIX_SIZE)",
        "told = _tell(core, record, FAILED_PREFIX, FAILED_PREFIX_SIZE)",
        LIFE,
    ),
    Mutant(
        "transfer",
        "if record.writes and has_gone(core, record):",
        "if False:",
        "peers/test_gone backend/test_fork",
    ),
    Mutant(
        "transfer",
        "if rc == NIXL_SUCCESS and record.gone:\n        rc = GONE",
        "",
        "peers/test_gone backend/test_fork",
    ),
    Mutant(
        "transfer",
        "if now >= record.deadline:\n            link[0] = record.next",
        "if True:\n            link[0] = record.next",
        LIFE,
    ),
    Mutant(
        "transfer",
        "if not record.claimed and finish(core, record, CANCELLED, reason, 0):",
        "if finish(core, record, CANCELLED, reason, 0):",
        LIFE,
    ),
    Mutant("transfer", "rouse(core)  # to drain it", "pass", LIFE),
    Mutant(
        "transfer",
        "record.say_at = begun + (SAY if record.near else MISSING)",
        "record.say_at = INT64_MAX",
        MOVERS + " whole/test_silence",
    ),
    Mutant(
        "transfer",
        "if record.large:\n        core.large_count -= 1",
        "",
        "whole/test_large engine/test_statistics",
    ),
    # The completion thread.
    Mutant("thread", "take_out(core, record)  # its quarantine is over", "pass", LIFE),
    Mutant(
        "thread",
        "if record.exposed and record.quarantine > 0:\n                retire(core, record, STAGE_UNKNOWN)",
        "if False:\n                retire(core, record, STAGE_UNKNOWN)",
        LIFE + " operations/test_closing",
    ),
    Mutant(
        "thread",
        "        if not record.claimed:\n            finish(core, record, CANCELLED, REASON_CLOSED, 0)",
        "        pass",
        LIFE + " operations/test_closing",
    ),
    Mutant(
        "thread",
        "record.deadline = INT64_MAX  # it is drained, for as long as that takes",
        "pass",
        LIFE,
    ),
    Mutant("thread", "let_go(core, now)", "pass", LIFE),
    Mutant(
        "thread",
        "if swept and (core.active_count == 0 or now_ns() >= core.drain_until):",
        "if swept:",
        "operations/test_closing " + LIFE,
    ),
    # What it keeps alive.
    Mutant(
        "collector",
        "if retired.stage == STAGE_UNKNOWN and retired.hold is not NULL:",
        "if False:",
        LIFE + " operations/test_closing",
    ),
    Mutant(
        "collector",
        "while last is not NULL and left > 1:",
        "while last is not NULL and left > 2:",
        "engine/test_reaper",
    ),
    # Doorbells.
    Mutant(
        "bell",
        "return not stands(fd, address) and errno == ECONNREFUSED",
        "return not stands(fd, address)",
        MOVERS,
    ),
    Mutant("bell", "if size >= ROOM:\n        return UNSAID", "", BELL),
    Mutant("bell", "who.uid == getuid() && who.pid >= 0", "1", BELL + " native/test_listening"),
    Mutant(
        "bell", "if size > ROOM:\n        return True  # what is longer is nobody's key", "", BELL
    ),
    Mutant("bell", "if errno == EAGAIN:\n        return FULL", "", BELL),
    # Keys that were used.
    Mutant(
        "used",
        "if key in self.latest or key in self.older:",
        "if key in self.latest:",
        "native/test_used",
    ),
    Mutant("used", "self.older.discard(key)", "pass", "native/test_used"),
    Mutant("used", "self.latest.add(key)", "pass", "native/test_used"),
    # Ranges.
    Mutant("ranges", "if known.end >= end:", "if known.end > end:", RANGES),
    Mutant(
        "ranges",
        "return a.start < start or (a.start == start and a.end < end)",
        "return a.start < start",
        RANGES,
    ),
    Mutant("ranges", "if i < 0 or i == group.count or (", "if i < 0 or (", RANGES),
    # Metadata of strangers.
    Mutant("envelope", "if region.length > UINT64_MAX - region.address:", "if False:", ENVELOPE),
    Mutant("envelope", "if reader.at != reader.size:", "if reader.at > reader.size:", ENVELOPE),
    Mutant("envelope", "if backend in connections:", "if False:", ENVELOPE),
    Mutant("envelope", "if not name.isprintable():", "if False:", ENVELOPE),
    Mutant(
        "envelope",
        "if length < 24 or length > 24 + MAX_KEY:",
        "if length > 24 + MAX_KEY:",
        ENVELOPE,
    ),
    # Registrations.
    Mutant(
        "registration",
        "if unique and _by_row(&fresh[unique - 1], &fresh[i]) == 0:",
        "if False:",
        REGISTERED,
    ),
    Mutant("registration", "Py_INCREF(owner)\n            made.owner", "made.owner", REGISTERED),
    # Figures.
    Mutant("census", "census.quarantined_bytes -= record.nbytes", "pass", LIFE),
    Mutant(
        "census",
        "if record.transfers == 1:\n            tally.nbytes += record.nbytes",
        "if True:\n            tally.nbytes += record.nbytes",
        MANY + " engine/test_statistics",
    ),
    Mutant("census", "us > 1ULL << bucket", "us >= 1ULL << bucket", FIGURES),
    Mutant(
        "record",
        "for i in range(MOST_PARTS):\n        free(record.parts[i].peer)",
        "",
        "peers/test_lanes",
    ),
]
