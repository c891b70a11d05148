"""The doctor: what it finds here, what it says when something is missing, and what it advises."""

import json
import pwd
import sys

import pytest
from commands import finished
from containers import after, opened_up, require_root

from nixl_connect.cli import children
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

    def run(*arguments, prefix=(), errors=False, **environment):
        command = [*prefix, sys.executable, "-c", CODE, "doctor", *arguments]
        status, out, err = finished(command, tmp_path, **environment)
        if errors:
            return status, out, err
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
        "process",
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


def test_signals_that_ucx_asks_for_are_the_programs(doctor):
    """UCX would take those of faults; this library gives them back, and doctor looks."""
    status, out = doctor("--json", UCX_HANDLE_ERRORS="bt,freeze", UCX_DEBUG_SIGNO="SIGUSR1")
    assert status == 0
    report = json.loads(out)
    assert report["nixl"]["signals"] == []
    assert report["process"]["variables"]["UCX_HANDLE_ERRORS"] == "bt,freeze"


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
    assert "UCX" in report["nixl"]["log"]
    _, out = doctor(UCX_TLS="cma")
    assert "\n  logged          [" in out
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
        "nixl": {"error": None, "signals": []},
        "process": {"variables": {}, "open_files": {"soft": 1 << 20, "hard": None}},
        "self_test": {
            "passed": True,
            "user": None,
            "connector_files": 50,
            "peer_files": 10,
            "lanes": {"rma": ["cma/memory"]},
        },
        "ucx": {
            "settings": {},
            "transports": [
                {"transport": name, "device": ""} for name in ("cma", "tcp", "rc_mlx5", "cuda_ipc")
            ],
        },
        "shared_memory": {"free_bytes": 1 << 34, "is_writable": True},
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
    ({"rdma": {"ports": [{"state": "1: DOWN"}]}}, "No port"),
    ({"shared_memory": {"is_writable": False}}, "can make no files in /dev/shm"),
    ({"nixl": {"signals": ["SIGHUP"]}}, "taken SIGHUP"),
    ({"process": {"open_files": {"soft": 200, "hard": 4096}}}, "room for 15 peers"),
    ({"process": {"variables": {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}}}, "UCX_TLS=tcp"),
    ({"process": {"variables": {"NIXL_TELEMETRY_ENABLE": "y"}}}, "note every transfer"),
    ({"process": {"variables": {"NIXL_TELEMETRY_ENABLE": "n"}}}, None),
    ({"process": {"variables": {"NIXL_LOG_LEVEL": "TRACE"}}}, "NIXL_LOG_LEVEL=TRACE"),
    ({"process": {"variables": {"UCX_LOG_LEVEL": "warn"}}}, None),
    ({"self_test": {"user": "alice", "lanes": {"rma": ["tcp/lo"]}}}, "sudo -u alice"),
    ({"self_test": {"user": "alice"}}, None),
]


@pytest.mark.parametrize(("changes", "words"), ADVICE)
def test_advice(changes, words):
    advice = doctor_advice.advise(_findings(**changes))
    assert len(advice) == (words is not None)
    assert all(words in sentence for sentence in advice)
    assert all("`" in sentence for sentence in advice)


def test_doctor_with_few_files(doctor):
    """What is needed is counted, and the self-test runs under the limit of its caller."""
    status, out = doctor("--json", prefix=after("ulimit -n 256"))
    assert status == 0
    report = json.loads(out)
    assert report["process"]["open_files"]["soft"] == 256
    test = report["self_test"]
    assert test["connector_files"] > 10
    assert test["peer_files"] > 2
    room = (256 - test["connector_files"]) // test["peer_files"]
    assert any(f"room for {room} peers" in sentence for sentence in report["advice"]) == (room < 32)
    status, out = doctor(prefix=after("ulimit -n 40"))
    assert status == 1
    assert "raise the limit (ulimit -n)" in " ".join(out.split())


def test_doctor_without_shared_memory(doctor):
    require_root()
    mount = "mount -t tmpfs -o ro,size=64m none /dev/shm"
    status, out = doctor("--json", prefix=after(mount, "unshare", "-m"))
    assert status == 0
    report = json.loads(out)
    assert not report["shared_memory"]["is_writable"]
    assert "can make no files in /dev/shm" in report["advice"][0]


def test_doctor_with_a_home_that_cannot_be_entered(doctor, tmp_path):
    home = tmp_path / "home"
    home.symlink_to(home)
    status, out = doctor("--json", HOME=str(home))
    assert status == 1
    report = json.loads(out)
    assert report["process"]["home"] == {
        "path": str(home),
        "configuration": str(home / ".nixl.cfg"),
        "is_reachable": False,
    }
    assert f"{home}/.nixl.cfg" in report["advice"][0]
    assert "`export NIXL_CONFIG_FILE=/dev/null`" in report["advice"][0]
    status, out = doctor(HOME=str(home), NIXL_CONFIG_FILE="/dev/null")
    assert status == 0
    assert "which cannot be entered" not in out


def test_doctor_with_telemetry(doctor, tmp_path):
    told = {"NIXL_TELEMETRY_ENABLE": "y", "NIXL_TELEMETRY_DIR": str(tmp_path)}
    status, out = doctor("--json", **told)
    assert status == 0
    report = json.loads(out)
    assert report["process"]["variables"].items() >= told.items()
    assert f"in a file of {tmp_path}" in report["advice"][0]


def test_doctor_as_another_user(doctor, tmp_path):
    """The second process is that user's, for which the interpreter has to be within reach."""
    require_root()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    variables = {"TMPDIR": str(private), "A_SECRET": "of root's"}
    prefix = after(opened_up(), "unshare", "-m")
    status, out = doctor("--json", "--as", "nobody", prefix=prefix, **variables)
    assert status == 0
    report = json.loads(out)
    assert report["self_test"]["user"] == "nobody"
    assert report["self_test"]["lanes"]
    assert "sudo -u nobody" in " ".join(report["advice"])


def test_another_user_inherits_no_secrets(monkeypatch):
    monkeypatch.setenv("A_SECRET", "of root's")
    monkeypatch.setenv("UCX_TLS", "tcp")
    user = pwd.getpwuid(0)
    inherited = children._owned(user, {"ASKED": "for"})["env"]
    assert "A_SECRET" not in inherited
    assert (inherited["UCX_TLS"], inherited["ASKED"]) == ("tcp", "for")
    assert (inherited["HOME"], inherited["LOGNAME"]) == (user.pw_dir, user.pw_name)
    assert children._owned(None, {})["env"]["A_SECRET"] == "of root's"


def test_doctor_as_nobody_at_all(doctor):
    status, _, err = doctor("--as", "no-such-user", errors=True)
    assert status == 2
    assert "--as" in err


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
