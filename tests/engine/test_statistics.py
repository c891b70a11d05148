"""What a connector tells of itself: figures, reports, and its log."""

import asyncio
import json
import logging
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from processes import until

import nixl_connect as nc
from nixl_connect.engine.statistics import PHASES

KINDS = ["readable", "writable", "read", "write", "repeated"]


def transfer(passive, active, kind, size=1000):
    array = np.zeros(size, np.uint8)
    if kind == "read":
        offered = passive.create_readable_blocking(nc.Descriptor(bytearray(size)))
        begun = active.begin_read_blocking(offered.metadata(), nc.Descriptor(array))
    else:
        offered = passive.create_writable_blocking(nc.Descriptor(bytearray(size)))
        begun = active.begin_write_blocking(nc.Descriptor(array), offered.metadata())
    begun.wait_for_completion_blocking(10)
    offered.wait_for_completion_blocking(10)


def test_what_ended_by_kind(make_connector):
    passive, active = make_connector(), make_connector()
    assert passive.stats() == {}
    for _ in range(3):
        transfer(passive, active, "read", 1000)
    for _ in range(2):
        transfer(passive, active, "write", 500)
    ended = passive.stats()["ended"]
    assert list(ended) == KINDS
    assert [ended[kind]["complete"] for kind in KINDS] == [3, 2, 0, 0, 0]
    assert [ended[kind]["bytes"] for kind in KINDS] == [3000, 1000, 0, 0, 0]
    ended = active.stats()["ended"]
    assert [ended[kind]["complete"] for kind in KINDS] == [0, 0, 3, 2, 0]
    assert [ended[kind]["bytes"] for kind in KINDS] == [0, 0, 3000, 1000, 0]
    assert all(ended[kind]["cancelled"] == ended[kind]["errored"] == 0 for kind in KINDS)


def test_each_operation_is_counted_once(make_connector):
    """However often its beginning was tried; one that is refused not at all."""
    passive, active = make_connector(), make_connector()
    size = 2 << 20  # large enough to begin on another thread, at least at first

    async def main():
        for _ in range(4):
            offered = await passive.create_readable(nc.Descriptor(np.zeros(size, np.uint8)))
            target = nc.Descriptor(np.zeros(size, np.uint8))
            read = await active.begin_read(offered.metadata(), target)
            await read.wait_for_completion(10)
            await offered.wait_for_completion(10)

    asyncio.run(main())
    assert active.stats()["operations"]["started"] == 4
    offered = passive.create_readable_blocking(nc.Descriptor(bytearray(8)))
    fields = offered.metadata().model_dump()
    fields["descriptors"][0]["ptr"] += 1 << 30
    for _ in range(3):
        with pytest.raises(nc.MetadataError):
            active.begin_read_blocking(
                nc.RdmaMetadata.model_validate(fields), nc.Descriptor(bytearray(8))
            )
    assert active.stats()["operations"]["started"] == 4
    assert passive.stats()["operations"]["started"] == 5


def test_durations(connector):
    """Each is counted between the bounds that it is between."""
    offered = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    metadata = offered.metadata()
    time.sleep(0.3)
    began = time.monotonic()
    read = connector.begin_read_blocking(metadata, nc.Descriptor(bytearray(8)))
    read.wait_for_completion_blocking(10)
    offered.wait_for_completion_blocking(10)
    took = time.monotonic() - began
    stats = connector.stats()
    bounds = [*stats["duration_bounds"], math.inf]
    assert bounds[:3] == [1e-6, 2e-6, 4e-6]
    assert bounds == sorted(bounds)
    for kind, least, most in (("readable", 0.3, 0.4 + took), ("read", 0, took)):
        ended = stats["ended"][kind]
        assert least < ended["seconds"] < most
        assert len(ended["durations"]) == len(bounds)
        assert sum(ended["durations"]) == 1
        place = ended["durations"].index(1)
        assert ended["seconds"] <= bounds[place]
        assert place == 0 or bounds[place - 1] < ended["seconds"]


def test_what_failed(make_connector):
    connector = make_connector(quarantine=0)
    offered = connector.create_readable_blocking(nc.Descriptor(bytearray(8)), timeout=0.01)
    with pytest.raises(nc.TransferTimeoutError):
        offered.wait_for_completion_blocking(10)
    offered = connector.create_writable_blocking(nc.Descriptor(bytearray(8)))
    offered.cancel()
    ended = connector.stats()["ended"]
    assert ended["readable"]["errored"] == ended["writable"]["cancelled"] == 1
    assert sum(sum(ended[kind]["durations"]) for kind in KINDS) == 0


def test_prepared_transfers_are_counted_one_by_one(make_connector):
    passive, active = make_connector(), make_connector()
    offered = passive.create_readable_blocking(nc.Descriptor(bytearray(64)))
    with active.prepare_read_blocking(offered.metadata(), nc.Descriptor(bytearray(64))) as read:
        for _ in range(5):
            read.transfer_blocking(10)
        asyncio.run(read.transfer(10))
    offered.wait_for_completion_blocking(10)
    ended = active.stats()["ended"]
    assert ended["repeated"]["complete"] == sum(ended["repeated"]["durations"]) == 6
    assert ended["repeated"]["bytes"] == 6 * 64
    assert ended["read"]["complete"] == 0
    assert active.operations() == []


def test_the_figures_are_json(connector):
    transfer(connector, connector, "read")
    assert json.loads(json.dumps(connector.stats()))["ended"]["read"]["complete"] == 1


def test_reports_of_passive_operations(make_connector):
    connector = make_connector(quarantine=5)
    assert connector.operations() == []
    offered = connector.create_readable_blocking(nc.Descriptor(bytearray(8)))
    waiting = connector.create_writable_blocking(nc.Descriptor(bytearray(9)), timeout=50)
    waiting.metadata()
    quarantined = connector.create_writable_blocking(nc.Descriptor(bytearray(10)))
    quarantined.metadata()
    quarantined.cancel()
    reports = connector.operations()
    assert [report.kind for report in reports] == ["readable", "writable", "writable"]
    assert [report.phase for report in reports] == ["offered", "waiting", "quarantined"]
    assert [report.nbytes for report in reports] == [8, 9, 10]
    assert [report.number for report in reports] == [1, 2, 3]
    assert reports[0].age >= reports[1].age >= reports[2].age > 0
    assert 250 < reports[0].left <= 300
    assert 40 < reports[1].left <= 50
    assert 4 < reports[2].left <= 5
    assert connector.operations(min_age=10) == []
    operations = connector.stats()["operations"]
    assert operations["quarantined"] == 1
    assert operations["quarantined_bytes"] == 10
    text = str(reports[1])
    assert text.startswith("operation 2, writable, 9 bytes: waiting, 0.")
    assert text.endswith(" s left")
    offered.cancel()
    waiting.cancel()
    assert [report.phase for report in connector.operations()] == ["quarantined"] * 2
    with pytest.raises(nc.ArgumentError):
        connector.operations(-1)
    with pytest.raises(nc.ArgumentError, match="limit must be at least 1"):
        connector.operations(limit=0)


def test_reports_grow_and_shrink_with_the_operations(make_connector):
    connector = make_connector(quarantine=3.0)
    made = [
        connector.create_readable_blocking(nc.Descriptor(bytearray(8)), timeout=math.inf)
        for _ in range(1000)
    ]
    assert len(connector.operations()) == 1000
    assert connector.operations()[0].left == math.inf
    assert [report.number for report in connector.operations(limit=3)] == [1, 2, 3]
    for operation in made[::2]:
        operation.metadata()
    for operation in made[100:900]:
        operation.cancel()
    reports = connector.operations()
    phases = connector.stats()["operations"]["phases"]
    assert {phase: count for phase, count in phases.items() if count} == {
        "offered": 100,
        "waiting": 100,
        "quarantined": 400,
    }
    assert phases == {phase: [r.phase for r in reports].count(phase) for phase in PHASES}
    assert [report.number for report in reports] == [
        number
        for number in range(1, 1001)
        if number <= 100 or number > 900 or (number - 1) % 2 == 0
    ]
    until(lambda: len(connector.operations()) == 200)
    assert connector.stats()["operations"]["quarantined"] == 0
    del made, operation
    until(lambda: connector.operations() == [])


def test_a_report_of_what_is_stuck(start_peer, connector):
    """Over TCP a read needs its peer, which is stopped here."""
    passive = start_peer(environment={"UCX_TLS": "tcp"})
    active = start_peer(environment={"UCX_TLS": "tcp"})
    made = passive.do("passive", kind="readable", sizes=[100])
    number = active.do("active", kind="read", metadata=made["metadata"], sizes=[100])["id"]
    active.do("wait", number=number)
    made = passive.do("passive", kind="readable", sizes=[1 << 20])
    passive.stop()
    begun = active.do("active", kind="read", metadata=made["metadata"], sizes=[1 << 20])["id"]
    # It is posted by another thread.
    until(lambda: active.do("reports")["reports"][0]["phase"] != "queued")
    (report,) = active.do("reports")["reports"]
    assert (report["kind"], report["phase"], report["nbytes"]) == ("read", "in flight", 1 << 20)
    assert report["peer"]
    active.do("cancel", number=begun)
    (report,) = active.do("reports")["reports"]
    assert report["phase"] == "draining"
    passive.resume()
    until(lambda: active.do("reports")["reports"] == [])
    assert active.do("stats")["stats"]["ended"]["read"]["cancelled"] == 1


def test_the_most_memory_in_quarantine(make_connector):
    """From there on nothing is offered to peers until some of it is free; transfers go on."""
    connector = make_connector(quarantine=3.0, max_quarantine_bytes=20_000)
    other = make_connector()
    for _ in range(2):
        offered = connector.create_writable_blocking(nc.Descriptor(bytearray(10_000)))
        offered.metadata()
        offered.cancel()
    text = "20000 bytes of abandoned operations are in quarantine; max_quarantine_bytes is 20000"
    with pytest.raises(nc.QuarantineError, match=text):
        connector.create_readable_blocking(nc.Descriptor(bytearray(1)))

    async def refused():
        with pytest.raises(nc.QuarantineError):
            await connector.create_writable(nc.Descriptor(bytearray(1)))

    asyncio.run(refused())
    transfer(other, connector, "read")
    until(lambda: connector.stats()["operations"]["quarantined_bytes"] == 0)
    transfer(connector, other, "write")


def test_the_log(make_connector, caplog):
    passive, active = make_connector(), make_connector()
    with caplog.at_level(logging.DEBUG, "nixl_connect"):
        transfer(passive, active, "read", 123)
        until(lambda: passive.stats()["operations"]["held"] == 0)
        passive.close_blocking()
    text = caplog.text
    for part in (
        "readable, 123 bytes",
        f"read, 123 bytes, peer {passive.name}-1",
        f"peer {passive.name}-1: loaded",
        "registered 123 bytes at 0x",
        "deregistered 123 bytes at 0x",
        "ended, NONE, memory CLEAN",
        f"{passive.name}-1: closed",
    ):
        assert part in text, part
    caplog.clear()
    transfer(make_connector(), active, "write")
    assert caplog.text == ""


def test_prometheus(make_connector):
    client = pytest.importorskip("prometheus_client")
    from nixl_connect.prometheus import Collector

    one, other, unused = make_connector("one"), make_connector("other"), make_connector("unused")
    registry = client.CollectorRegistry()
    registry.register(Collector(one, other, unused))
    assert "worker_id" not in client.generate_latest(registry).decode()
    transfer(one, other, "read", 1000)
    value = registry.get_sample_value
    read = {"worker_id": "other", "kind": "read"}
    assert value("nixl_connect_operations_total", read | {"result": "complete"}) == 1
    assert value("nixl_connect_bytes_total", read) == 1000
    assert value("nixl_connect_operation_seconds_count", read) == 1
    assert value("nixl_connect_operation_seconds_bucket", read | {"le": "+Inf"}) == 1
    seconds = value("nixl_connect_operation_seconds_sum", read)
    counts = {
        sample.labels["le"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket") and read.items() <= sample.labels.items()
    }
    assert list(counts.values()) == sorted(counts.values())
    assert {float(bound) >= seconds: count for bound, count in counts.items()} == {
        False: 0,
        True: 1,
    }
    assert value("nixl_connect_peers", {"worker_id": "other"}) == 1
    assert value("nixl_connect_notifications_total", {"worker_id": "one"}) == 1
    assert value("nixl_connect_operations_waiting", {"worker_id": "one"}) == 0
    offered = one.create_readable_blocking(nc.Descriptor(bytearray(8)))
    by_phase = "nixl_connect_operations_by_phase"
    assert value(by_phase, {"worker_id": "one", "phase": "offered"}) == 1
    assert value(by_phase, {"worker_id": "one", "phase": "in flight"}) == 0
    offered.cancel()
    text = client.generate_latest(registry).decode()
    assert 'worker_id="unused"' not in text


def test_prometheus_without_what_is_closed(make_connector):
    client = pytest.importorskip("prometheus_client")
    from nixl_connect.prometheus import Collector

    one, other = make_connector("one"), make_connector("other")
    registry = client.CollectorRegistry()
    registry.register(Collector(one, other))
    transfer(one, other, "read")
    one.close_blocking()
    text = client.generate_latest(registry).decode()
    assert 'worker_id="other"' in text
    assert 'worker_id="one"' not in text


def test_peers(start_peer, make_connector):
    """Who is connected, what is known of each, and when it was last used."""
    connector = make_connector()
    assert connector.peers() == []
    first, second = start_peer("first"), start_peer("second")
    for peer in (first, second):
        told = peer.do("passive", kind="readable", sizes=[64])["metadata"]
        read = connector.begin_read_blocking(
            nc.RdmaMetadata.model_validate(told), nc.Descriptor(bytearray(64))
        )
        read.wait_for_completion_blocking(10)
    reports = connector.peers()
    assert [report.name for report in reports] == ["second-1", "first-1"]
    assert [report.in_flight for report in reports] == [0, 0]
    assert [report.regions for report in reports] == [1, 1]
    assert all(report.near for report in reports)
    assert 0 < reports[0].idle < reports[1].idle < 60
    assert connector.stats()["peers"]["count"] == 2


@pytest.mark.parametrize("transport", ["shared memory", "tcp"])
def test_peers_that_are_lost_do_not_count(start_peer, make_connector, transport):
    """On this host their end is noticed; otherwise a transfer that fails shows it."""
    connector = make_connector()
    peer = start_peer("lost", {} if transport == "shared memory" else {"UCX_TLS": "tcp"})
    for _ in range(2):
        made = peer.do("passive", kind="readable", sizes=[64])["metadata"]
        told = nc.RdmaMetadata.model_validate(made)
        connector.begin_read_blocking(
            told, nc.Descriptor(bytearray(64))
        ).wait_for_completion_blocking(10)
    assert connector.stats()["peers"]["count"] == 1
    (known,) = connector._open()._engine.peers.known()
    if transport == "tcp":
        known.near = False
    peer.kill()
    if transport == "tcp":
        again = nc.RdmaMetadata.model_validate(made | {"notification_key": "another"})
        with pytest.raises(nc.PeerLostError):
            connector.begin_read_blocking(
                again, nc.Descriptor(bytearray(64))
            ).wait_for_completion_blocking(10)
        assert connector.stats()["peers"]["count"] == 0
    until(lambda: connector.stats()["peers"]["count"] == 0)
    assert connector.peers() == []
    known.join()
    (report,) = connector.peers()
    assert (report.name, report.in_flight) == ("lost-1", 1)
    known.leave()


def test_the_documentation_lists_every_figure(connector):
    """In its table; what ended has the same keys for each kind, in one row."""
    connector.create_readable_blocking(nc.Descriptor(bytearray(8))).cancel()
    stats = connector.stats()
    page = Path(__file__).parents[2] / "docs" / "howto" / "observing.md"
    table = page.read_text().partition("| group | key |")[2].partition("\n\n")[0]
    group, told = "", {}
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        group = cells[0].strip("`") or group
        told.setdefault(group, set()).update(re.findall(r"`(\w+)`", cells[1]))
        if group == "ended":
            told[group].update(re.findall(r"`(\w+)`", cells[2]))
    ended = stats.pop("ended")
    assert told.pop("ended") == set(ended["readable"])
    assert told == {
        key: set(value) if isinstance(value, dict) else set() for key, value in stats.items()
    }
