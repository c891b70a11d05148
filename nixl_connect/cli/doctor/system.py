"""What the machine has, read from Linux. Nothing here touches NIXL, and nothing is changed.

Each function returns plain data for the report; what cannot be read is None.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import resource
import shutil
from pathlib import Path
from typing import Any

# Where the files are looked for; tests put another machine here.
ROOT = Path("/")
_SYS_PTRACE = 19  # CAP_SYS_PTRACE in linux/capability.h


def _read(path: str) -> str | None:
    """Return a file's text without the space around it; None if there is none to read."""
    try:
        return (ROOT / path).read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    content = _read(path)
    return int(content) if content is not None and re.fullmatch(r"-?[0-9]+", content) else None


def _names(folder: str) -> list[str]:
    path = ROOT / folder
    return sorted(item.name for item in path.iterdir()) if path.is_dir() else []


def _find(pattern: str, path: str) -> str | None:
    """Return the first group of a pattern in a file; None if it does not occur."""
    found = re.search(pattern, _read(path) or "", re.MULTILINE)
    return found.group(1) if found else None


def host() -> dict[str, Any]:
    """Return the operating system, the processors, and what container this seems to be."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "container": _container(),
    }


def _container() -> str | None:
    if (ROOT / ".dockerenv").exists():
        return "docker"
    if (ROOT / "run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return _find("(docker|kubepods|containerd|lxc)", "proc/1/cgroup")


def shared_memory() -> dict[str, Any]:
    """Return size and free space of /dev/shm, in bytes, and whether files can be made there."""
    path = ROOT / "dev/shm"
    usage = shutil.disk_usage(path) if path.is_dir() else None
    return {
        "path": str(path),
        "size_bytes": usage.total if usage else None,
        "free_bytes": usage.free if usage else None,
        "is_writable": path.is_dir() and os.access(path, os.W_OK | os.X_OK),
    }


def permissions() -> dict[str, Any]:
    """Return what decides whether a process may copy from another's memory, and pin its own.

    Notes
    -----
    UCX's transport ``cma`` copies with process_vm_readv(2), which the kernel allows as it allows
    ptrace(2): by Yama's ``ptrace_scope`` where there is one, and by CAP_SYS_PTRACE.
    """
    effective = _find(r"^CapEff:\s*([0-9a-f]+)", "proc/self/status")
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = soft == resource.RLIM_INFINITY
    return {
        "yama_ptrace_scope": _number("proc/sys/kernel/yama/ptrace_scope"),
        "cap_sys_ptrace": None
        if effective is None
        else bool(int(effective, 16) >> _SYS_PTRACE & 1),
        "memlock_unlimited": unlimited,
        "memlock_bytes": None if unlimited else soft,
    }


def huge_pages() -> dict[str, Any]:
    """Return the huge pages set aside, and whether the kernel makes transparent ones."""
    info = _read("proc/meminfo") or ""
    fields = {name: int(value) for name, value in re.findall(r"^(\w+):\s*([0-9]+)", info, re.M)}
    return {
        "size_bytes": fields["Hugepagesize"] * 1024 if "Hugepagesize" in fields else None,
        "total": fields.get("HugePages_Total"),
        "free": fields.get("HugePages_Free"),
        "transparent": _find(r"\[(\w+)\]", "sys/kernel/mm/transparent_hugepage/enabled"),
    }


def network() -> list[dict[str, Any]]:
    """Return the network interfaces; the speed in Mbit/s where the driver knows it."""
    found = []
    for name in _names("sys/class/net"):
        folder = f"sys/class/net/{name}"
        if not (ROOT / folder).is_dir():
            continue  # bonding_masters is a file
        speed = _number(f"{folder}/speed")
        found.append(
            {
                "name": name,
                "state": _read(f"{folder}/operstate"),
                "mtu": _number(f"{folder}/mtu"),
                "speed_mbps": speed if speed is not None and speed > 0 else None,
            }
        )
    return found


def rdma() -> dict[str, Any]:
    """Return the RDMA devices of the kernel and their ports, and the nodes that open them."""
    ports = []
    for device in _names("sys/class/infiniband"):
        for port in _names(f"sys/class/infiniband/{device}/ports"):
            folder = f"sys/class/infiniband/{device}/ports/{port}"
            ports.append(
                {
                    "device": device,
                    "port": port,
                    "state": _read(f"{folder}/state"),
                    "link_layer": _read(f"{folder}/link_layer"),
                    "rate": _read(f"{folder}/rate"),
                }
            )
    return {
        "ports": ports,
        "nodes": [name for name in _names("dev/infiniband") if name.startswith("uverbs")],
    }


def gpus() -> dict[str, Any]:
    """Return NVIDIA's driver, its devices, and whether cuda-python is installed."""
    folder = "proc/driver/nvidia/gpus"
    return {
        "driver_version": _find(
            r"Kernel Module.*?\s([0-9]+\.[0-9.]+)", "proc/driver/nvidia/version"
        ),
        "models": [
            _find(r"^Model:\s*(.+)$", f"{folder}/{name}/information") or name
            for name in _names(folder)
        ],
        "nodes": [name for name in _names("dev") if re.fullmatch(r"nvidia[0-9]+", name)],
        "peer_memory_module": (ROOT / "sys/module/nvidia_peermem").is_dir(),
        "cuda_python": _has_cuda_python(),
    }


def _has_cuda_python() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:  # not even its parent
        return False
