"""The child of the doctor that starts NIXL and looks around.

Reports after each step, so that what breaks in native code costs only what comes after it.
"""

from __future__ import annotations

import nixl_connect as nc
from nixl_connect.backend import library
from nixl_connect.cli.child import Parent, run
from nixl_connect.cli.doctor import process, ucx


def main() -> None:
    """Report what is found."""
    run(_work)


def _work(parent: Parent) -> None:
    parent.report("library", **library.load()._asdict())
    connector = nc.Connector()
    before = process.caught_signals()
    with connector:
        plugins = connector._open()._engine.plugins()
        parent.report(
            "plugins",
            plugins=plugins,
            signals=process.signal_names(process.caught_signals() - before),
        )
        path = ucx.find_loaded()
        if path is not None:
            parent.report("ucx", path=path, **ucx.inspect(path))
    parent.report("cuda", available=connector.is_cuda_available)
    parent.report("done")
