"""Statistics of connectors for Prometheus. Requires the package ``prometheus-client``.

::

    from prometheus_client import REGISTRY
    from nixl_connect.prometheus import Collector

    REGISTRY.register(Collector(connector))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as _Collector

from nixl_connect.connector import Connector
from nixl_connect.errors import ClosedError

_GAUGES = (
    ("operations_waiting", "Operations that have not ended", "operations", "waiting"),
    ("operations_in_flight", "Transfers in flight", "operations", "active"),
    ("held_bytes", "Memory that operations keep alive", "operations", "held_bytes"),
    ("quarantined", "Operations whose memory is in quarantine", "operations", "quarantined"),
    ("quarantined_bytes", "Memory in quarantine", "operations", "quarantined_bytes"),
    ("registrations", "Registered regions", "registrations", "count"),
    ("registered_bytes", "Registered memory", "registrations", "bytes"),
    ("peers", "Peers that are connected", "peers", "count"),
)
_COUNTERS = (
    ("peer_reloads", "Connections to peers that took the place of others", "peers", "reloads"),
    ("peer_evictions", "Peers disconnected because lost or idle", "peers", "evictions"),
    ("notifications", "Notifications received", "notifications", "received"),
    (
        "notifications_unmatched",
        "Notifications that no operation waited for",
        "notifications",
        "unmatched",
    ),
)


class Collector(_Collector):
    """Collects the statistics of connectors on each scrape, labelled with their worker ids.

    Parameters
    ----------
    *connectors : Connector
        Connectors to report on. Left out are those that are closed, those that have had no
        operation yet and, in a child process, those of its parent.
    """

    def __init__(self, *connectors: Connector) -> None:
        self._connectors = connectors

    def describe(self) -> list[Metric]:
        """Return an empty list: names are not checked in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the current figures: sizes in bytes, durations in seconds."""
        seen = [(connector.name, _stats(connector)) for connector in self._connectors]
        seen = [(name, stats) for name, stats in seen if stats]
        for family, figures in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for short, text, group, key in figures:
                metric = family(f"nixl_connect_{short}", text, labels=["worker_id"])
                for name, stats in seen:
                    metric.add_metric([name], stats[group][key])
                yield metric
        phases = GaugeMetricFamily(
            "nixl_connect_operations_by_phase",
            "Operations that there are, by what they wait for",
            labels=["worker_id", "phase"],
        )
        for name, stats in seen:
            for phase, count in stats["operations"]["phases"].items():
                phases.add_metric([name, phase], count)
        yield phases
        yield from _ended(seen)


def _stats(connector: Connector) -> Mapping[str, Any]:
    """Return a connector's figures; none for one that is closed, or the parent's."""
    try:
        return {} if connector._closed else connector.stats()
    except ClosedError:
        return {}


def _ended(seen: list[tuple[str, Mapping[str, Any]]]) -> Iterator[Metric]:
    """Return what became of operations."""
    results = CounterMetricFamily(
        "nixl_connect_operations",
        "Operations that ended, by kind and result",
        labels=["worker_id", "kind", "result"],
    )
    nbytes = CounterMetricFamily(
        "nixl_connect_bytes", "Bytes of complete operations", labels=["worker_id", "kind"]
    )
    durations = HistogramMetricFamily(
        "nixl_connect_operation_seconds",
        "How long complete operations took",
        labels=["worker_id", "kind"],
    )
    for name, stats in seen:
        bounds = [*map(repr, stats["duration_bounds"]), "+Inf"]
        for kind, ended in stats["ended"].items():
            for result in ("complete", "cancelled", "errored"):
                results.add_metric([name, kind, result], ended[result])
            nbytes.add_metric([name, kind], ended["bytes"])
            durations.add_metric(
                [name, kind],
                list(zip(bounds, itertools.accumulate(ended["durations"]), strict=True)),
                ended["seconds"],
            )
    yield results
    yield nbytes
    yield durations
