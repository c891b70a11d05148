"""What would make transfers faster, or possible at all, in words: a function of the findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nixl_connect.cli.lanes import is_direct

_MIB = 1024 * 1024
# UCX keeps its queues there, some MiB for each connector.
_SMALLEST_SHARED_MEMORY = 64 * _MIB
# RDMA pins the memory that it transfers.
_SMALLEST_MEMLOCK = 1024 * _MIB
_FEW_PEERS = 32
_OFF = ("", "0", "n", "no", "off", "false")
_VERBOSE = ("debug", "trace", "data", "func", "poll", "req", "async")


def advise(report: dict[str, Any]) -> list[str]:
    """Return sentences of advice, the most important first; an empty list if there is none.

    Parameters
    ----------
    report : dict
        The findings, as `doctor.examine` gathers them.
    """
    if report["nixl"]["error"] is not None:
        return [report["nixl"]["error"], *_settings(report), *_process(report)]
    return [
        *_failure(report),
        *_settings(report),
        *_process(report),
        *_same_host(report),
        *_between_hosts(report),
        *_devices(report),
    ]


def _failure(report: dict[str, Any]) -> Iterator[str]:
    test = report["self_test"]
    if not test["passed"]:
        yield f"The self-test failed: {test['error']}"


def _settings(report: dict[str, Any]) -> Iterator[str]:
    variables = report["process"]["variables"]
    limiting = [name for name in ("UCX_TLS", "UCX_NET_DEVICES") if name in variables]
    if limiting:
        values = ", ".join(f"{name}={variables[name]}" for name in limiting)
        names = " ".join(limiting)
        yield f"{values} limits what UCX may use; unless that is meant, `unset {names}`."
    telemetry = "NIXL_TELEMETRY_ENABLE"
    if variables.get(telemetry, "").lower() not in _OFF:
        folder = variables.get("NIXL_TELEMETRY_DIR")
        where = "" if folder is None else f", in a file of {folder} for each connector"
        yield (
            f"{telemetry}={variables[telemetry]} has NIXL note every transfer{where}; unless that "
            f"is meant, `unset {telemetry}`."
        )
    for name in ("NIXL_LOG_LEVEL", "UCX_LOG_LEVEL"):
        if variables.get(name, "").lower() in _VERBOSE:
            yield (
                f"{name}={variables[name]} logs what each transfer does, which takes longer than "
                f"the transfer; unless that is meant, `unset {name}`."
            )


def _process(report: dict[str, Any]) -> Iterator[str]:
    taken = report["nixl"]["signals"]
    if taken:
        yield (
            f"UCX has taken {' and '.join(taken)}, which the program then does not get: "
            "`export UCX_HANDLE_ERRORS=none UCX_DEBUG_SIGNO=0`."
        )
    limit, test = report["process"]["open_files"]["soft"], report["self_test"]
    if limit is None or not test["passed"]:
        return
    each = max(1, test["peer_files"])
    room = (limit - test["connector_files"]) // each
    if room < _FEW_PEERS:
        yield (
            f"This process may have {limit} files open. A connector takes "
            f"{test['connector_files']}, and each peer on this machine {each}: there is room for "
            f"{max(0, room)} peers. Raise it with `ulimit -n 65536`, in a unit of systemd with "
            "`LimitNOFILE=65536`, in a container with `--ulimit nofile=65536`."
        )


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
    test = report["self_test"]
    can_copy = "cma" in transports and test["passed"] and test["lanes"]
    if can_copy and test["user"] and not is_direct(test["lanes"]):
        yield (
            f"Processes of this user and of {test['user']} do not copy from each other's memory: "
            "the kernel lets a process do so with those of its own user only. Run both as one, "
            f"with `sudo -u {test['user']}`; or give the one that reads or writes CAP_SYS_PTRACE, "
            "in a container with `--cap-add SYS_PTRACE`."
        )
    shared = report["shared_memory"]
    free = shared["free_bytes"]
    if free is not None and not shared["is_writable"]:
        yield (
            "This process can make no files in /dev/shm, so UCX uses other shared memory. Allow it "
            "with `mount -o remount,rw /dev/shm` and `chmod 1777 /dev/shm`."
        )
    elif free is not None and free < _SMALLEST_SHARED_MEMORY:
        yield (
            f"/dev/shm has only {free // _MIB} MiB left, and UCX keeps queues there; enlarge it, "
            "in a container with `--shm-size 1g` or `--ipc host`."
        )
    if report["host"]["cpus"] == 1:
        yield (
            "This process may use one processor only, which both sides of a local transfer share: "
            "`taskset -pc 0-1 $$`, or `--cpus 2` for a container, if there are more."
        )


def _between_hosts(report: dict[str, Any]) -> Iterator[str]:
    rdma, permissions = report["rdma"], report["permissions"]
    if not rdma["ports"]:
        yield (
            "There is no RDMA device: between machines the data goes over TCP. An InfiniBand or "
            "RoCE adapter moves it without the processors, several times as fast; `lspci` shows "
            "whether there is one that lacks its driver."
        )
        return
    if not rdma["nodes"]:
        yield (
            "There is an RDMA device, but no /dev/infiniband/uverbs* to open it with; in a "
            "container add `--device /dev/infiniband`."
        )
    elif not any("ACTIVE" in (port["state"] or "") for port in rdma["ports"]):
        yield (
            "No port of the RDMA devices is active: check the cable, the switch and the driver "
            "(`rdma link` shows them)."
        )
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
        yield (
            "There is a GPU, but CUDA does not start: check the driver with `nvidia-smi`, or "
            "`unset CUDA_VISIBLE_DEVICES`."
        )
    if not any(item["transport"].startswith("cuda") for item in report["ucx"]["transports"]):
        yield (
            "UCX found no CUDA transport, so GPU memory cannot be transferred: check that the NIXL "
            "wheel is that of your CUDA version (`pip install -U --no-deps nixl-cu13`, or "
            "nixl-cu12)."
        )
