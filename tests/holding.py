"""What a connector holds, seen without the letting go that `Connector.stats` does first."""

import nixl_connect as nc


def held(connector: nc.Connector) -> dict[str, int]:
    """Return how many operations hold memory, are in flight, and how much is registered."""
    connection = connector._connection
    if connection is None:
        return {"operations": 0, "active": 0, "registrations": 0}
    engine = connection._engine
    return {
        "operations": len(engine.keeper.kept),
        "active": engine._reactor.counters["active"],
        "registrations": len(engine.registrations)
        + sum(len(lane.registrations) for lane in engine.lanes),
    }
