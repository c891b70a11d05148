"""Processes that end or fork at awkward moments: no hang, no crash, no noise."""

import subprocess
import sys
import textwrap
import time

import pytest

import nixl_connect as nc

PRELUDE = """
import asyncio, gc, os, sys, threading
import numpy as np
import nixl_connect as nc
one, two = nc.Connector(), nc.Connector()
def moved(owner=one, mover=two, size=1000):
    data, into = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    passive = owner.create_readable_blocking(nc.Descriptor(data))
    active = mover.begin_read_blocking(passive.metadata(), nc.Descriptor(into))
    active.wait_for_completion_blocking(10)
    passive.wait_for_completion_blocking(10)
    assert (data == into).all()
"""


def run(program, deadline=30):
    """Run a program; return its exit status and what it printed on both streams."""
    done = subprocess.run(
        # From 3.12 on a fork is warned of where there are threads, as here there are.
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            PRELUDE + textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
        timeout=deadline,
        cwd="/",
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "program",
    [
        "",
        "moved()",
        "passive = one.create_readable_blocking(nc.Descriptor(b'abc'))",
        "passive = one.create_readable_blocking(nc.Descriptor(b'abc')); passive.metadata()",
        """
        passive = one.create_readable_blocking(nc.Descriptor(b'abc'))
        threading.Thread(target=lambda: [passive.wait_for_completion_blocking(60)],
                         daemon=True).start()
        """,
        """
        async def main():
            global passive
            passive = await one.create_readable(nc.Descriptor(b'abc'))
            passive.metadata()
            task = asyncio.create_task(passive.wait_for_completion())
            await asyncio.sleep(0.01)
        asyncio.run(main())
        """,
        """
        moved()
        d = nc.Descriptor(np.zeros(1000)); d.register_memory(one)
        cycle = [d]; cycle.append(cycle)
        """,
        "moved(); sys.exit(0)",
        "moved(); os._exit(0)",
        "moved(); del one, two; gc.collect()",
        """
        import weakref
        class Late:
            def __del__(self):
                self.operation.cancel()
        late = Late(); late.operation = one.create_readable_blocking(nc.Descriptor(b'abc'))
        late.self = late
        """,
    ],
    ids=[
        "nothing opened",
        "idle",
        "pending",
        "metadata out",
        "thread waits",
        "loop ends",
        "registered in a cycle",
        "sys.exit",
        "os._exit",
        "dropped",
        "late finalizer",
    ],
)
def test_exit_without_closing_is_silent(program):
    assert run(program) == (0, "")


def test_a_thread_waits_longer_than_the_interpreter_lives():
    """The process goes on for a while without an interpreter, to which no thread may come back."""
    program = """
        import ctypes
        libc = ctypes.CDLL(None)
        # After the interpreter's end, until standard input ends.
        libc['__cxa_atexit'](libc.getchar, None, None)
        passive = one.create_readable_blocking(nc.Descriptor(b'abc'))
        threading.Thread(
            target=lambda: passive.wait_for_completion_blocking(60), daemon=True
        ).start()
        print('goes', flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    ) as process:
        try:
            assert process.stdout.readline() == b"goes\n"
            time.sleep(1)  # several of the thread's looks at signals
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ValueError"])
def test_who_ends_at_once_has_told_its_peer(make_connector, ending):
    """A program whose read is complete may end: the other side learns that it is."""
    connector = make_connector()
    program = """
        for line in sys.stdin:
            told = nc.RdmaMetadata.model_validate_json(line)
            into = np.zeros(8, np.uint8)
            one.begin_read_blocking(told, nc.Descriptor(into)).wait_for_completion_blocking(10)
    """
    for _ in range(5):
        with connector.create_readable_blocking(nc.Descriptor(b"01234567")) as passive:
            done = subprocess.run(
                [sys.executable, "-c", f"{PRELUDE}{textwrap.dedent(program)}{ending}"],
                input=passive.metadata().model_dump_json(),
                capture_output=True,
                text=True,
                timeout=30,
                cwd="/",
                check=False,
            )
            passive.wait_for_completion_blocking(10)
            assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(ending, 1)


def test_an_exception_ends_as_usual():
    status, text = run("moved(); raise ValueError('the program is wrong')")
    assert status == 1
    assert text.rstrip().endswith("ValueError: the program is wrong")


def test_keyboard_interrupt_reaches_a_blocking_wait():
    status, text = run(
        """
        import signal
        # A shell that runs the tests in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        passive = one.create_readable_blocking(nc.Descriptor(b'abc'))
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            passive.wait_for_completion_blocking(20)
        except KeyboardInterrupt:
            print('interrupted')
        """
    )
    assert (status, text) == (0, "interrupted\n")


def test_a_fork_while_another_thread_loads_nixl():
    """The child's copy of the lock belongs to a thread that is not there."""
    status, text = run(
        """
        from nixl_connect.backend import library
        held, done = threading.Event(), threading.Event()
        def load():
            with library._lock:
                held.set()
                done.wait(20)
        thread = threading.Thread(target=load)
        thread.start()
        held.wait()
        child = os.fork()
        if not child:
            library.load()
            os._exit(7)
        status = os.waitpid(child, 0)[1]
        done.set()
        thread.join()
        print(os.waitstatus_to_exitcode(status))
        """
    )
    assert (status, text.splitlines()[-1]) == (0, "7"), text


def test_children_of_a_fork_have_agents_of_their_own():
    """A connector that was made before a fork, and not used, works in each child."""
    status, text = run(
        """
        known, names, before = {one: "known"}, {f"{one.name}-1"}, one.name
        for _ in range(2):
            told, tell = os.pipe()
            child = os.fork()
            if not child:
                offered = one.create_readable_blocking(nc.Descriptor(b"12345678"))
                assert one.name == before and known[one] == "known"
                os.write(tell, offered.connection.name.encode())
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            names.add(os.read(told, 200).decode())
        assert all(name.startswith(before) for name in names)
        print(len(names))
        """
    )
    assert (status, text.splitlines()[-1:]) == (0, ["3"]), text


def test_a_forked_child_is_told_nothing():
    """Of the parent's connection, whose locks threads may hold that are not there."""
    status, text = run(
        """
        moved()
        peers = two._connection._engine.peers
        held, done = threading.Event(), threading.Event()
        def hold():
            with peers._lock:
                held.set()
                done.wait(20)
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if not child:
            for refused in (two.stats, two.operations, two.peers):
                try:
                    refused()
                except nc.ClosedError:
                    continue
                os._exit(1)
            os._exit(7)
        status = os.waitpid(child, 0)[1]
        done.set()
        thread.join()
        print(os.waitstatus_to_exitcode(status))
        """
    )
    assert (status, text.splitlines()[-1]) == (0, "7"), text


def test_a_forked_child_is_refused_and_the_parent_goes_on():
    status, text = run(
        """
        import warnings
        warnings.simplefilter('ignore', DeprecationWarning)
        moved()
        passive = one.create_readable_blocking(nc.Descriptor(np.ones(10, np.uint8)))
        descriptor = nc.Descriptor(np.zeros(100)); descriptor.register_memory(one)
        child = os.fork()
        if child == 0:
            for attempt in (
                lambda: one.create_readable_blocking(nc.Descriptor(b'abc')),
                lambda: asyncio.run(one.create_readable(nc.Descriptor(b'abc'))),
                lambda: passive.metadata(),
                lambda: passive.wait_for_completion_blocking(1),
                lambda: asyncio.run(passive.wait_for_completion(1)),
                lambda: passive.cancel(),
                lambda: descriptor.register_memory(two),
            ):
                try:
                    attempt()
                except (nc.ClosedError, nc.RegistrationError):
                    pass
                else:
                    print('not refused')
            one.close_blocking()
            with passive:
                pass
            del passive, descriptor, one, two
            gc.collect()
            try:
                nc.Connector().create_readable_blocking(nc.Descriptor(b'abc'))
            except nc.BackendError as error:
                assert 'spawn' in str(error)
                sys.exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
        moved()
        into = np.zeros(10, np.uint8)
        active = two.begin_read_blocking(passive.metadata(), nc.Descriptor(into))
        active.wait_for_completion_blocking(10)
        passive.wait_for_completion_blocking(10)
        assert into.all()
        """
    )
    assert (status, text) == (0, "7\n")
