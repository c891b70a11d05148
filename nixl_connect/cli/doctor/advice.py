"""What would make transfers faster, or possible at all, in words: a function of the findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MIB = 1024 * 1024
# UCX keeps its queues there, some MiB for each connector.
_SMALLEST_SHARED_MEMORY = 64 * _MIB
# RDMA pins the memory that it transfers.
_SMALLEST_MEMLOCK = 1024 * _MIB


def advise(report: dict[str, Any]) -> list[str]:
    """Return sentences of advice, the most important first; an empty list if there is none.

    Parameters
    ----------
    report : dict
        The findings, as `doctor.examine` gathers them.
    """
    if report["nixl"]["error"] is not None:
        return [report["nixl"]["error"], *_settings(report)]
    return [*_settings(report), *_same_host(report), *_between_hosts(report), *_devices(report)]


def _settings(report: dict[str, Any]) -> Iterator[str]:
    settings = report["ucx"]["settings"]
    limiting = [name for name in ("UCX_TLS", "UCX_NET_DEVICES") if name in settings]
    if limiting:
        values = ", ".join(f"{name}={settings[name]}" for name in limiting)
        yield f"{values} limits what UCX may use; unset it unless that is meant."


def _same_host(report: dict[str, Any]) -> Iterator[str]:
    ucx, permissions = report["ucx"], report["permissions"]
    transports = {item["transport"] for item in ucx["transports"]}
    if transports and "cma" not in transports and "UCX_TLS" not in ucx["settings"]:
        why = "the kernel does not let processes copy from each other"
        if permissions["yama_ptrace_scope"] and not permissions["cap_sys_ptrace"]:
            why = f"kernel.yama.ptrace_scope is {permissions['yama_ptrace_scope']}"
        yield (
            "Between processes of this machine data takes the detour over TCP, since UCX's "
            f"transport cma is not usable: {why}. Allow it with `sysctl "
            "kernel.yama.ptrace_scope=0` or, in a container, `--cap-add SYS_PTRACE`."
        )
    free = report["shared_memory"]["free_bytes"]
    if free is not None and free < _SMALLEST_SHARED_MEMORY:
        yield (
            f"/dev/shm has only {free // _MIB} MiB left, and UCX keeps queues there; enlarge it, "
            "in a container with `--shm-size 1g` or `--ipc host`."
        )
    if report["host"]["cpus"] == 1:
        yield "This process may use one processor only, which both sides of a local transfer share."


def _between_hosts(report: dict[str, Any]) -> Iterator[str]:
    rdma, permissions = report["rdma"], report["permissions"]
    if not rdma["ports"]:
        yield (
            "There is no RDMA device: between machines the data goes over TCP. An InfiniBand or "
            "RoCE adapter moves it without the processors, several times as fast."
        )
        return
    if not rdma["nodes"]:
        yield (
            "There is an RDMA device, but no /dev/infiniband/uverbs* to open it with; in a "
            "container add `--device /dev/infiniband`."
        )
    elif not any("ACTIVE" in (port["state"] or "") for port in rdma["ports"]):
        yield "No port of the RDMA devices is active: check the cable, the switch and the driver."
    limit = permissions["memlock_bytes"]
    if limit is not None and limit < _SMALLEST_MEMLOCK:
        yield (
            f"RDMA pins memory, and this process may pin {limit // 1024} KiB; raise it with "
            "`ulimit -l unlimited` or, in a container, `--ulimit memlock=-1`."
        )


def _devices(report: dict[str, Any]) -> Iterator[str]:
    gpus = report["gpus"]
    if not (gpus["models"] or gpus["nodes"]):
        return
    if not gpus["cuda_python"]:
        yield (
            "There is a GPU but no cuda-python: `pip install 'nixl-connect[cuda13]'`, or "
            "`[cuda12]` for CUDA 12."
        )
    elif not gpus["usable"]:
        yield "There is a GPU, but CUDA does not start: check the driver, or CUDA_VISIBLE_DEVICES."
    if not any(item["transport"].startswith("cuda") for item in report["ucx"]["transports"]):
        yield (
            "UCX found no CUDA transport, so GPU memory cannot be transferred: check that the NIXL "
            "wheel is that of your CUDA version."
        )
