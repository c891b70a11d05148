"""The doctor's findings as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from nixl_connect.cli.lanes import DIRECT, used_transports
from nixl_connect.cli.text import format_bytes, format_seconds

_LABEL = 16
_WIDTH = 96
_LOG_LINES = 20


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report."""
    host = report["host"]
    yield f"nixl-connect {report['version']}"
    yield _line("python", host["python"])
    yield _line("system", f"{host['system']} {host['release']}, {host['machine']}")
    yield _line("processors", host["cpus"])
    yield _line("container", host["container"] or "none recognised")
    yield from _nixl(report["nixl"], report["ucx"])
    yield from _process(report)
    yield from _machine(report)
    yield from _gpus(report["gpus"])
    yield from _self_test(report["self_test"])
    yield ""
    yield "advice"
    if not report["advice"]:
        yield "  Nothing to improve was found."
    for sentence in report["advice"]:
        yield textwrap.fill(
            sentence,
            _WIDTH,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _line(label: str, value: object) -> str:
    return f"  {label:{_LABEL}}{value}"


def _listed(items: Iterable[str], otherwise: str = "none") -> str:
    return ", ".join(items) or otherwise


def _nixl(nixl: dict[str, Any], ucx: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "NIXL"
    if nixl["found"]:
        yield _line("library", nixl["path"])
        yield _line("found by", nixl["source"])
        yield _line("version", nixl["version"] or "unknown")
        yield _line("plugins", _listed(nixl["plugins"]))
        if nixl["signals"]:
            yield _line("signals taken", " ".join(nixl["signals"]))
    else:
        yield _line("library", "NOT FOUND; see the advice")
    yield from _logged(nixl["log"])
    by_transport: dict[str, list[str]] = {}
    for item in ucx["transports"]:
        by_transport.setdefault(item["transport"], []).append(item["device"])
    yield ""
    yield "UCX"
    yield _line("version", ucx["version"] or "unknown")
    yield _line(
        "transports", _listed(f"{name} ({' '.join(at)})" for name, at in by_transport.items())
    )
    if ucx["error"]:
        yield _line("problem", ucx["error"])


def _logged(log: str) -> Iterator[str]:
    """Yield what a process wrote before it failed, a line for each."""
    for number, text in enumerate(log.splitlines()[-_LOG_LINES:]):
        yield _line("" if number else "logged", text)


def _process(report: dict[str, Any]) -> Iterator[str]:
    process, test = report["process"], report["self_test"]
    home, files = process["home"], process["open_files"]
    yield ""
    yield "process"
    yield _line("variables", _listed(f"{k}={v}" for k, v in process["variables"].items()))
    yield _line(
        "home",
        f"{home['path'] or 'not set'}{'' if home['is_reachable'] else ', which cannot be entered'}",
    )
    limits = " of ".join("unlimited" if files[k] is None else str(files[k]) for k in files)
    used = ""
    if test["passed"]:
        used = (
            f"; a connector took {test['connector_files']}, "
            f"a peer on this machine {test['peer_files']}"
        )
    yield _line("open files", f"{limits}{used}")


def _machine(report: dict[str, Any]) -> Iterator[str]:
    shared, permissions, huge = (
        report["shared_memory"],
        report["permissions"],
        report["huge_pages"],
    )
    yield ""
    yield "memory"
    yield _line(
        "shared memory",
        "no /dev/shm"
        if shared["size_bytes"] is None
        else (
            f"{shared['path']}: {format_bytes(shared['free_bytes'])} free "
            f"of {format_bytes(shared['size_bytes'])}"
            f"{'' if shared['is_writable'] else ', cannot be written'}"
        ),
    )
    scope = permissions["yama_ptrace_scope"]
    yield _line(
        "ptrace",
        (
            f"yama scope {'none' if scope is None else scope}, "
            f"CAP_SYS_PTRACE {_yes(permissions['cap_sys_ptrace'])}"
        ),
    )
    yield _line(
        "pinnable",
        "unlimited"
        if permissions["memlock_unlimited"]
        else format_bytes(permissions["memlock_bytes"]),
    )
    yield _line(
        "huge pages",
        (
            f"{huge['free'] or 0} of {huge['total'] or 0} free, "
            f"transparent: {huge['transparent'] or 'unknown'}"
        ),
    )
    yield ""
    yield "network"
    for item in report["network"]:
        speed = f", {item['speed_mbps']} Mbit/s" if item["speed_mbps"] else ""
        yield _line(item["name"], f"{item['state']}, mtu {item['mtu']}{speed}")
    rdma = report["rdma"]
    for port in rdma["ports"]:
        yield _line(
            f"{port['device']}:{port['port']}",
            f"RDMA, {port['state']}, {port['link_layer']}, {port['rate']}",
        )
    if not rdma["ports"]:
        yield _line("RDMA", "no device")
    else:
        yield _line("RDMA nodes", _listed(rdma["nodes"]))


def _yes(known: bool | None) -> str:
    return "unknown" if known is None else "yes" if known else "no"


def _gpus(gpus: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "GPUs"
    yield _line("driver", gpus["driver_version"] or "none")
    yield _line("devices", _listed(gpus["models"] or gpus["nodes"]))
    yield _line("cuda-python", "installed" if gpus["cuda_python"] else "not installed")
    yield _line("usable", _yes(gpus["usable"]))
    yield _line("nvidia_peermem", "loaded" if gpus["peer_memory_module"] else "not loaded")


def _path(lanes: dict[str, list[str]]) -> str:
    """Return how large copies between the two processes went."""
    used = used_transports(lanes)
    direct = sorted(used & DIRECT)
    if direct:
        return f"direct, from process to process ({' '.join(direct)})"
    return f"over {' '.join(sorted(used - {'self'}))}" if used else "unknown"


def _self_test(test: dict[str, Any]) -> Iterator[str]:
    yield ""
    whose = f", the second as {test['user']}" if test["user"] else ""
    yield f"self-test, two processes of this machine{whose}"
    if not test["passed"]:
        yield _line("FAILED", test["error"])
        yield from _logged(test["log"])
        return
    yield _line("passed", "all that was read and written agrees by SHA-256")
    yield _line("first contact", format_seconds(test["first_contact_seconds"]))
    yield _line(
        f"{format_bytes(test['small_bytes'])} read", format_seconds(test["small_read_seconds"])
    )
    large = format_bytes(test["large_bytes"])
    yield _line(f"{large} read", f"{format_bytes(test['read_bytes_per_second'])}/s")
    yield _line(f"{large} write", f"{format_bytes(test['write_bytes_per_second'])}/s")
    yield _line("large copies", _path(test["lanes"]))
    yield _line(
        "UCX used",
        _listed(f"{purpose}: {' '.join(chosen)}" for purpose, chosen in test["lanes"].items()),
    )
