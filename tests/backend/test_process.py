"""What belongs to the whole process is after opening, and after closing, as it was before."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import build

HERE = Path(__file__).parents[1]


def python(*arguments, **environment):
    """Run Python in a process of its own, away from the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd="/",
        env={key: value for key, value in os.environ.items() if not key.startswith("UCX_")}
        | environment,
        capture_output=True,
        text=True,
        timeout=50,
    )


def unchanged(*arguments, **environment):
    """Run unchanged.py; return what changed and what it wrote to standard output."""
    done = python(str(HERE / "unchanged.py"), *arguments, **environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    assert len(told["steps"]) == 7
    changed = {step: what for step, what in told["steps"].items() if what}
    return changed, told["takers"], done.stdout


@pytest.mark.parametrize("disposition", ["handler", "default", "ignored"])
def test_opening_and_closing_change_nothing(disposition):
    assert unchanged(disposition) == ({}, [], "")


def test_nor_where_ucx_is_to_handle_errors():
    """UCX takes the signals of faults then, and has them run on a stack of its own."""
    everything = {"UCX_HANDLE_ERRORS": "bt", "UCX_DEBUG_SIGNO": "SIGUSR1"}
    assert unchanged("handler", **everything) == ({}, [], "")


def test_what_the_program_sets_later_stays():
    assert unchanged("handler", "set-later") == ({}, [], "")


def test_what_ucx_logs_is_not_on_standard_output():
    """A variable that UCX does not know makes it say so."""
    done = python("-c", "import nixl_connect as nc; nc.Connector()._open()", UCX_UNHEARD_OF="1")
    assert done.stdout == ""
    assert "UCX_UNHEARD_OF" in done.stderr


def test_what_ucx_logs_is_where_the_user_wants_it(tmp_path):
    log = tmp_path / "log"
    done = python(
        "-c",
        "import nixl_connect as nc; nc.Connector()._open()",
        UCX_UNHEARD_OF="1",
        UCX_LOG_FILE=str(log),
    )
    assert (done.stdout, "UCX_UNHEARD_OF" in done.stderr) == ("", False)
    assert "UCX_UNHEARD_OF" in log.read_text()


HANGUP = """
import os, signal, sys
import nixl_connect as nc
ran = []
if sys.argv[1] == "handler":
    signal.signal(signal.SIGHUP, lambda *_: ran.append(1))
with nc.Connector() as connector:
    connector._open()
    os.kill(os.getpid(), signal.SIGHUP)
    print("ran", len(ran))
"""


def test_a_handler_of_the_program_runs():
    assert python("-c", HANGUP, "handler").stdout == "ran 1\n"


def test_the_default_ends_the_process():
    # It may be ignored here, as by nohup, which processes inherit.
    default = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    assert python("-c", default + HANGUP, "default").returncode == -signal.SIGHUP


def test_what_was_ignored_is_ignored():
    """As nohup starts programs."""
    script = f"trap '' HUP; exec {sys.executable} -c '{HANGUP}' ignored"
    done = subprocess.run(
        ["sh", "-c", script], check=False, cwd="/", capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout) == (0, "ran 0\n")


# The signal comes as soon as UCX has taken it, which is as early as it can go wrong.
EARLY = """
import ctypes, os, signal
import nixl_connect as nc
ran = []
signal.signal(signal.SIGHUP, lambda *_: ran.append(1))
hook = ctypes.CDLL(os.environ["LD_PRELOAD"])
hook.arm()
with nc.Connector() as connector:
    connector._open()
    print(hook.sent(), len(ran))
"""
HOOK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>
static int armed, count;
void arm(void) { armed = 1; }
int sent(void) { return count; }
int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    int rc;
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "sigaction");
    rc = real(number, new, old);
    if (armed && number == SIGHUP && new != NULL) {
        armed = 0;
        count++;
        kill(getpid(), SIGHUP);
    }
    return rc;
}
"""


def test_a_signal_that_comes_while_ucx_has_it(tmp_path):
    """It waits, where there is no other thread that could take it, until it is given back."""
    if "LD_PRELOAD" in os.environ:
        pytest.skip("something else is preloaded, such as a sanitizer's library")
    source = tmp_path / "hook.c"
    source.write_text(HOOK)
    library = build([source], tmp_path / "hook.so")
    alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = python("-c", EARLY, LD_PRELOAD=str(library), **alone)
    assert (done.returncode, done.stdout) == (0, "1 1\n")


# At the very end, when libraries are left, the signal is what the program has made of it.
AT_THE_END = """
import ctypes, os, signal, sys
import nixl_connect as nc
signal.signal(signal.SIGHUP, signal.SIG_DFL)
connector = nc.Connector()
connector._open()
connector.close_blocking()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
last = ctypes.CDLL(sys.argv[1])  # after UCX, so that it is left after UCX
"""
LAST = """
#include <signal.h>
#include <stdio.h>
__attribute__((destructor)) static void end(void)
{
    struct sigaction now;
    sigaction(SIGHUP, NULL, &now);
    puts(now.sa_handler == SIG_IGN ? "ignored" : "not ignored");
}
"""


def test_ucx_changes_no_signal_when_the_process_ends(tmp_path):
    source = tmp_path / "last.c"
    source.write_text(LAST)
    library = build([source], tmp_path / "last.so")
    assert python("-c", AT_THE_END, str(library)).stdout == "ignored\n"


# The main thread waits for the signal itself: nobody else may take it.
WAITING = """
import os, signal, threading
import nixl_connect as nc
with nc.Connector() as connector:
    connector._open()  # its threads are started before
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
    print(signal.sigtimedwait({signal.SIGTERM}, 10).si_signo == signal.SIGTERM)
"""


def test_no_thread_takes_a_signal_that_the_program_waits_for():
    # NumPy's own threads would.
    done = python("-c", WAITING, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    assert (done.returncode, done.stdout) == (0, "True\n")


CONCURRENT = """
import signal, threading
import nixl_connect as nc
stop = threading.Event()
connectors = [nc.Connector() for _ in range(2)]
def opening():
    for connector in connectors:
        connector._open()
thread = threading.Thread(target=opening)
thread.start()
mine = []
def handler(*_): mine.append(1)
count = 0
while thread.is_alive():
    signal.signal(signal.SIGUSR2, handler if count % 2 else signal.SIG_DFL)
    signal.signal(signal.SIGHUP, handler if count % 2 else signal.SIG_IGN)
    count += 1
signal.signal(signal.SIGHUP, handler)
signal.signal(signal.SIGUSR2, handler)
thread.join()
for number in (signal.SIGHUP, signal.SIGUSR2):
    signal.raise_signal(number)
print(len(mine))
for connector in connectors:
    connector.close_blocking()
"""


def test_what_the_main_thread_sets_while_another_opens_stays():
    assert python("-c", CONCURRENT).stdout == "2\n"


def test_a_handler_that_was_set_through_c_stays():
    """By another library, say."""
    code = f"""
import ctypes
import nixl_connect as nc
libc = ctypes.CDLL(None)
libc.signal.restype = ctypes.c_void_p
libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
handler = ctypes.cast(libc.abs, ctypes.c_void_p).value
libc.signal({int(signal.SIGHUP)}, handler)
with nc.Connector() as connector:
    connector._open()
    print(libc.signal({int(signal.SIGHUP)}, handler) == handler)
"""
    assert python("-c", code).stdout == "True\n"


def test_how_this_thread_calculates_is_kept(connector):
    """Rounding, whatever a library does about it when it is loaded or used."""
    libm = ctypes.CDLL("libm.so.6")
    before = libm.fegetround()
    upward = {"x86_64": 0x800, "aarch64": 0x400000}.get(os.uname().machine)
    if upward is None:
        pytest.skip("not known here")
    assert libm.fesetround(upward) == 0
    try:
        connector._open()
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(before)
