"""Calls of NIXL and UCX are led elsewhere also while other threads load libraries."""

from pathlib import Path

import pytest
from compiling import build
from processes import run_python

HERE = Path(__file__).parent
SOURCE = HERE / "slow_to_load.c"
PROGRAM = """
import ctypes, os, sys, threading
from nixl_connect._native import redirect

def load():
    program.dlopen(sys.argv[1].encode(), os.RTLD_NOW)  # unlike CDLL, without the GIL
    loaded.set()

def files():
    return {number for number in range(64) if os.path.exists(f"/proc/self/fd/{number}")}

program = ctypes.CDLL(None)
program.dlopen.restype = ctypes.c_void_p
loaded = threading.Event()
loading = threading.Thread(target=load)
loading.start()
looks = 0
while not loaded.is_set():
    redirect.redirect()
    looks += 1
loading.join()
redirect.redirect()
before = files()
library = ctypes.CDLL(sys.argv[1])
assert library.open_some() == 0
opened = files() - before
print(looks, len(opened), sum(map(os.get_inheritable, opened)))
"""


@pytest.mark.parametrize("words", ["at once", "by tables of jumps"])
def test_a_library_that_another_thread_is_loading(tmp_path, words):
    """It is left alone until it is there, and then led elsewhere."""
    library = tmp_path / "libuct_slow.so"
    build([SOURCE], library, "-Wl,-z,now,-z,relro", *(["-fno-plt"] if words == "at once" else []))
    run = run_python("-c", PROGRAM, str(library), timeout=60)
    looks, opened, inherited = map(int, run.stdout.split())
    assert looks > 0
    assert (opened, inherited) == (4, 0)


def test_what_cannot_be_led_is_counted(tmp_path):
    """Calls that open and close descriptors, and those that copy between processes, apart."""
    library = build([HERE / "odd_words.c"], tmp_path / "libuct_odd.so")
    program = (
        "import ctypes, sys\n"
        "from nixl_connect._native import redirect\n"
        "print(redirect.redirect(), redirect.copies_refused())\n"
        "ctypes.CDLL(sys.argv[1])\n"
        "print(redirect.redirect(), redirect.copies_refused())"
    )
    run = run_python("-c", program, str(library), timeout=60)
    assert run.stdout.split() == ["0", "0", "1", "2"]
