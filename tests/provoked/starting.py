"""NIXL that is not there, children of a fork, and programs that forget something."""

import asyncio
import contextlib
import os
import pickle
import subprocess
import sys

import pytest
from processes import DEADLINE

import nixl_connect as nc
from nixl_connect.memory import cuda
from provoked.lab import provokes


def elsewhere(code, **environment):
    """Run code in a process of its own, and raise the error that it ends with."""
    done = subprocess.run(
        [sys.executable, "-c", "import nixl_connect as nc\n" + code],
        env=os.environ | environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    kind, _, text = done.stderr.strip().splitlines()[-1].partition(": ")
    raise getattr(nc, kind.rpartition(".")[2])(text)


OPEN = "connector = nc.Connector()\nconnector.create_readable_blocking(nc.Descriptor(b'abc'))\n"


@provokes("LibraryError: NIXL cannot be loaded: …")
def no_nixl(lab):
    elsewhere(OPEN, NIXL_CONNECT_LIBRARY="/nowhere/libnixl_capi.so")


@provokes("LibraryError: There are two NIXLs in this process, which cannot work: …")
def two_nixls(lab):
    # By what the kernel says is mapped.
    elsewhere(
        "from nixl_connect.backend import library\n"
        "library._cores = lambda: {'/one/libnixl.so', '/other/libnixl.so'}\n" + OPEN
    )


@provokes(
    "BackendError: opening a connector may need … file descriptors, and … of … are in use: "
    "raise the limit (ulimit -n)"
)
def no_files(lab):
    elsewhere("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n" + OPEN)


@provokes(
    "BackendError: connecting peer … may need … file descriptors, and … of … are in use: "
    "raise the limit (ulimit -n)"
)
def no_files_for_a_peer(lab):
    metadata = lab.readable().metadata().model_dump_json()
    elsewhere(
        OPEN + "import os, resource\n"
        "most = max(map(int, os.listdir('/proc/self/fd'))) + 12\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        f"metadata = nc.RdmaMetadata.model_validate_json({metadata!r})\n"
        "connector.begin_read_blocking(metadata, nc.Descriptor(bytearray(3)))\n"
    )


@provokes("BackendError: NIXL cannot start the transport …")
def no_transport(lab):
    lab.readable(connector=lab.make(backends=["NONE"]))


@provokes("BackendError: NIXL cannot start the transport …")
def no_transport_of_ucx(lab):
    elsewhere(OPEN, UCX_TLS="none")


# The child leaves without freeing memory: there UCX's hook may wait for a lock that nobody has.
FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")  # that a process with threads forks: the parent may say so last
if os.fork():
    os._exit(os.wait()[1] >> 8)
say = sys.excepthook
sys.excepthook = lambda *error: (say(*error), sys.stderr.flush(), os._exit(1))
"""


@provokes("BackendError: NIXL was used before this process was forked, …")
def forked(lab):
    elsewhere(OPEN + FORK + OPEN)


@provokes(
    "ClosedError: the connector of … was opened before this process was forked; open connectors in "
    "children only, or start processes with multiprocessing's 'spawn' or 'forkserver'"
)
def the_parents_connector(lab):
    elsewhere(OPEN + FORK + "connector.create_readable_blocking(nc.Descriptor(b'abc'))")


@provokes(
    "ClosedError: the pool's connector was opened before this process was forked; make pools in "
    "children only, or start processes with multiprocessing's 'spawn' or 'forkserver'"
)
def the_parents_pool(lab):
    elsewhere(OPEN + "pool = nc.HostPool(connector)\n" + FORK + "pool.acquire_blocking(100)")


@provokes("TypeError: … cannot be copied or pickled; …")
def a_connector_for_a_child(lab):
    pickle.dumps(lab.owner)


@provokes("TypeError: … cannot be copied or pickled; …")
def an_operation_for_a_child(lab):
    pickle.dumps(lab.readable())


@provokes("AttributeError: 'coroutine' object has no attribute …")
def no_await(lab):
    readable = lab.owner.create_readable(nc.Descriptor(b"abc"))
    with contextlib.closing(readable):
        readable.metadata()


@provokes("TypeError: 'coroutine' object does not support the …")
def no_await_in_a_block(lab):
    if sys.version_info < (3, 11):
        pytest.skip("says AttributeError")

    async def main():
        readable = lab.owner.create_readable(nc.Descriptor(b"abc"))
        with contextlib.closing(readable):
            async with readable:
                pass

    asyncio.run(main())


@provokes("LibraryError: … takes cuda-python and a GPU; …")
def no_gpu(lab):
    if cuda.is_available():
        pytest.skip("there is one")
    nc.Descriptor(b"abc", stream=1)
