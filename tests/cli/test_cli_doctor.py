"""The doctor: what it finds here, what it says when something is missing, and what it advises."""

import json
import sys

import pytest
from commands import finished

from nixl_connect.cli.doctor import advice as doctor_advice
from nixl_connect.cli.doctor import system as doctor_system

DEADLINE = 60
# The doctor does without the extra of the command line.
CODE = (
    f"import sys; sys.path[:] = {sys.path!r}; sys.modules['aiohttp'] = sys.modules['rich'] = None; "
    "from nixl_connect.cli import main; sys.exit(main())"
)


@pytest.fixture
def doctor(tmp_path):
    """Run the doctor; return its exit status and output."""

    def run(*arguments, **environment):
        command = [sys.executable, "-c", CODE, "doctor", *arguments]
        status, out, err = finished(command, tmp_path, **environment)
        assert err == ""
        return status, out

    return run


def test_doctor_tells_and_tries(doctor):
    status, out = doctor("--json")
    assert status == 0
    report = json.loads(out)
    assert list(report) == [
        "version",
        "host",
        "nixl",
        "ucx",
        "shared_memory",
        "permissions",
        "huge_pages",
        "network",
        "rdma",
        "gpus",
        "self_test",
        "advice",
    ]
    assert report["nixl"]["found"]
    assert "UCX" in report["nixl"]["plugins"]
    assert report["nixl"]["error"] is report["ucx"]["error"] is None
    assert "tcp" in {item["transport"] for item in report["ucx"]["transports"]}
    test = report["self_test"]
    assert test["passed"]
    assert test["error"] is None
    assert test["lanes"]
    for name in (
        "first_contact_seconds",
        "small_read_seconds",
        "read_bytes_per_second",
        "write_bytes_per_second",
    ):
        assert test[name] > 0


def test_doctor_follows_the_settings_of_ucx(doctor):
    status, out = doctor("--json", UCX_TLS="tcp")
    assert status == 0
    report = json.loads(out)
    assert {item["transport"] for item in report["ucx"]["transports"]} == {"tcp"}
    used = {lane for lanes in report["self_test"]["lanes"].values() for lane in lanes}
    assert {lane.split("/")[0] for lane in used} == {"tcp"}
    assert any(sentence.startswith("UCX_TLS=tcp limits") for sentence in report["advice"])


def test_doctor_in_words(doctor):
    status, out = doctor()
    assert status == 0
    for heading in ("NIXL", "UCX", "memory", "network", "GPUs", "self-test", "advice"):
        assert f"\n\n{heading}" in out
    assert "all that was read and written agrees" in out


def test_doctor_without_nixl(doctor, tmp_path):
    missing = str(tmp_path / "missing.so")
    status, out = doctor(NIXL_CONNECT_LIBRARY=missing)
    assert status == 1
    assert "NOT FOUND" in out
    assert "pip install 'nixl-connect[cu12]'" in " ".join(out.split())
    status, out = doctor("--json", NIXL_CONNECT_LIBRARY=missing)
    assert status == 1
    report = json.loads(out)
    assert not report["nixl"]["found"]
    assert not report["self_test"]["passed"]
    assert "pip install" in report["advice"][0]


def test_doctor_with_a_transport_that_cannot_start(doctor):
    status, out = doctor("--json", UCX_TLS="cma")
    assert status == 1
    report = json.loads(out)
    assert report["nixl"]["found"]
    assert "cannot start the transport 'UCX'" in report["nixl"]["error"]
    assert any("UCX_TLS=cma limits" in sentence for sentence in report["advice"])


def _findings(**changes):
    port = {
        "device": "mlx5_0",
        "port": "1",
        "state": "4: ACTIVE",
        "link_layer": "InfiniBand",
        "rate": "400 Gb/sec",
    }
    findings = {
        "host": {"cpus": 8},
        "nixl": {"error": None},
        "ucx": {
            "settings": {},
            "transports": [
                {"transport": name, "device": ""} for name in ("cma", "tcp", "rc_mlx5", "cuda_ipc")
            ],
        },
        "shared_memory": {"free_bytes": 1 << 34},
        "permissions": {"yama_ptrace_scope": 1, "cap_sys_ptrace": True, "memlock_bytes": None},
        "rdma": {"ports": [port], "nodes": ["uverbs0"]},
        "gpus": {"models": ["H100"], "nodes": [], "cuda_python": True, "usable": True},
    }
    for section, fields in changes.items():
        findings[section] |= fields
    return findings


TCP = [{"transport": "tcp", "device": "lo"}]
ADVICE = [
    ({}, None),
    ({"ucx": {"transports": [*TCP, {"transport": "cuda_copy", "device": "cuda"}]}}, "cma"),
    ({"ucx": {"transports": TCP}, "gpus": {"models": []}}, "SYS_PTRACE"),
    ({"shared_memory": {"free_bytes": 1 << 20}}, "--shm-size"),
    ({"host": {"cpus": 1}}, "one processor"),
    ({"rdma": {"ports": []}}, "no RDMA device"),
    ({"rdma": {"nodes": []}}, "--device /dev/infiniband"),
    ({"permissions": {"memlock_bytes": 65536}}, "ulimit -l"),
    ({"gpus": {"cuda_python": False}}, "no cuda-python"),
    ({"gpus": {"usable": False}}, "CUDA does not start"),
]


@pytest.mark.parametrize(("changes", "words"), ADVICE)
def test_advice(changes, words):
    advice = doctor_advice.advise(_findings(**changes))
    assert len(advice) == (words is not None)
    assert all(words in sentence for sentence in advice)


def test_another_machine(tmp_path, monkeypatch):
    files = {
        "dev/infiniband/uverbs0": "",
        "dev/infiniband/rdma_cm": "",
        "dev/nvidia0": "",
        "dev/nvidiactl": "",
        "proc/1/cgroup": "0::/kubepods/burstable/pod1",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 1\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "
        "570.124.06  Release Build",
        "proc/meminfo": "HugePages_Total: 8\nHugePages_Free: 3\nHugepagesize: 2048 kB",
        "proc/self/status": "Name:\tx\nCapEff:\t0000000000080000\n",
        "proc/sys/kernel/yama/ptrace_scope": "1\n",
        "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
        "sys/class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
        "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
        "sys/class/net/bonding_masters": "",
        "sys/class/net/eth0/mtu": "9000\n",
        "sys/class/net/eth0/operstate": "up\n",
        "sys/class/net/eth0/speed": "100000\n",
        "sys/class/net/eth1/speed": "-1\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/module/nvidia_peermem/version": "",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(doctor_system, "ROOT", tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert doctor_system.host()["container"] == "kubepods"
    permissions = doctor_system.permissions()
    assert (permissions["yama_ptrace_scope"], permissions["cap_sys_ptrace"]) == (1, True)
    assert doctor_system.huge_pages() == {
        "size_bytes": 2 << 20,
        "total": 8,
        "free": 3,
        "transparent": "madvise",
    }
    assert doctor_system.network() == [
        {"name": "eth0", "state": "up", "mtu": 9000, "speed_mbps": 100_000},
        {"name": "eth1", "state": None, "mtu": None, "speed_mbps": None},
    ]
    assert doctor_system.rdma() == {
        "ports": [
            {
                "device": "mlx5_0",
                "port": "1",
                "state": "4: ACTIVE",
                "link_layer": "InfiniBand",
                "rate": "400 Gb/sec (4X NDR)",
            }
        ],
        "nodes": ["uverbs0"],
    }
    gpus = doctor_system.gpus()
    assert gpus["driver_version"] == "570.124.06"
    assert gpus["models"] == ["NVIDIA H100"]
    assert gpus["nodes"] == ["nvidia0"]
    assert gpus["peer_memory_module"]


def test_an_empty_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_system, "ROOT", tmp_path)
    assert doctor_system.shared_memory()["size_bytes"] is None
    assert doctor_system.permissions()["cap_sys_ptrace"] is None
    assert doctor_system.network() == []
    assert doctor_system.rdma() == {"ports": [], "nodes": []}
    assert doctor_system.gpus()["driver_version"] is None
