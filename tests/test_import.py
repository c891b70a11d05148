"""What importing the package costs and needs: little, and neither NIXL nor anything optional."""

from importlib import metadata

import pytest
from processes import run_python

import nixl_connect as nc

OPTIONAL = {
    "aiohttp",
    "cuda.bindings",
    "cuda.core",
    "cupy",
    "nixl",
    "nixl_cu12",
    "nixl_cu13",
    "numpy",
    "pydantic",
    "pydantic_core",
    "rich",
    "torch",
    "uvloop",
}


def imported(statement):
    """Top-level names of the modules that a statement imports, beside those of any program."""
    return _imported(statement) - _imported("pass")


def _imported(statement):
    lines = run_python("-X", "importtime", "-c", statement).stderr.splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    # Packages share the name "cuda", and some of them install hooks that run with every program.
    return {".".join(name.split(".")[: 2 if name.startswith("cuda.") else 1]) for name in names}


def test_nothing_optional():
    names = imported("import nixl_connect")
    assert "nixl_connect" in names
    assert names & OPTIONAL == set()


def test_nothing_that_only_a_connector_needs():
    # A third of what the import takes would be these and what they import.
    late = {"asyncio", "hashlib", "hmac", "pathlib", "socket", "ssl", "urllib"}
    assert imported("import nixl_connect") & late == set()


def test_the_check_above_sees_what_is_imported():
    assert "numpy" in imported("import nixl_connect, numpy")


def test_descriptors_and_metadata_need_nothing_optional_either():
    statement = (
        "import nixl_connect as nc; "
        "m = nc.RdmaMetadata(descriptors=[nc.Descriptor(bytearray(8)).metadata]); "
        "nc.RdmaMetadata.model_validate_json(m.model_dump_json()); "
        "nc.RdmaMetadata.from_bytes(m.to_bytes()); nc.Connector(keys=b'0123456789abcdef')"
    )
    assert imported(statement) & OPTIONAL == set()


def test_a_transfer_needs_nothing_optional_either():
    statement = (
        "import nixl_connect as nc\n"
        "with nc.Connector() as c:\n"
        "    c.create_readable_blocking(nc.Descriptor(bytearray(8))).metadata()\n"
    )
    assert imported(statement) & OPTIONAL == set()


def test_starts_nothing():
    """An import that started threads would break programs that fork."""
    code = (
        "import os\nbefore = len(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd'))\n"
        "import nixl_connect\nnixl_connect.Connector()\n"
        "after = len(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd'))\n"
        "assert before == after, (before, after)"
    )
    run_python("-c", code)


def test_is_silent_and_clean():
    done = run_python("-W", "error", "-X", "dev", "-bb", "-c", "import nixl_connect")
    assert done.stdout == ""
    assert done.stderr == ""


def test_without_assertions_and_docstrings():
    run_python("-OO", "-c", "import nixl_connect; nixl_connect.Descriptor(bytearray(8))")


def test_without_nixl():
    run_python(
        "-c", "import nixl_connect; nixl_connect.Connector()", NIXL_CONNECT_LIBRARY="/absent.so"
    )


PUBLIC = {
    "AbstractOperation",
    "ActiveOperation",
    "Connection",
    "Connector",
    "Descriptor",
    "Device",
    "DeviceKind",
    "NixlConnectError",
    "OperationKind",
    "OperationStatus",
    "PassiveOperation",
    "RdmaMetadata",
    "ReadOperation",
    "ReadableOperation",
    "Remote",
    "SerializedDescriptor",
    "WritableOperation",
    "WriteOperation",
    "__version__",
}


def test_public_names():
    assert set(nc.__all__) >= PUBLIC
    assert len(nc.__all__) == len(set(nc.__all__))
    for name in nc.__all__:
        assert hasattr(nc, name)


def test_star_import():
    code = "from nixl_connect import *; print(Connector.__name__, __version__)"
    assert run_python("-c", code).stdout.split() == ["Connector", nc.__version__]


def test_version_is_that_of_the_distribution():
    try:
        installed = metadata.version("nixl-connect")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is imported from a checkout, not installed")
    assert nc.__version__ == installed
