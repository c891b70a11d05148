"""Children of a process that has a connector: what they inherit, and what they are refused."""

import pytest
from children import TRANSPORTS, run

from nixl_connect._native import redirect
from nixl_connect.backend import inheritance

# --- what is inherited -------------------------------------------------------------------------


@TRANSPORTS
def test_all_that_a_connector_opens_is_closed_by_exec_and_noted(tls):
    """Its connection to a peer, and what an event loop waits on, included."""
    run(
        """
        before = files()
        one, two = nc.Connector(), nc.Connector()
        move(one, two)

        async def wait():
            offered = await one.create_readable(nc.Descriptor(np.ones(100, np.uint8)))
            into = nc.Descriptor(np.zeros(100, np.uint8))
            async with await two.begin_read(offered.metadata(), into) as reading:
                await reading.wait_for_completion()
            await offered.wait_for_completion(20)

        asyncio.run(wait())
        opened = {fd: path for fd, path in files().items() if fd not in before}
        assert sum(path.startswith("socket:") for path in opened.values()) > 10, opened
        assert not [fd for fd in opened if os.get_inheritable(fd)], opened
        steady()
        opened = {fd: path for fd, path in files().items() if fd not in before}
        assert set(file_descriptors.noted()) == opened.keys(), opened
        one.close_blocking(), two.close_blocking()
        assert set(file_descriptors.noted()) <= files().keys()
        """,
        UCX_TLS=tls,
    )


@pytest.mark.parametrize("how", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_a_forked_child_has_dev_null_in_their_place(how):
    """Also where the C library is asked to fork, and Python knows nothing of it."""
    run(
        f"""
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        steady()
        before, noted = files(), file_descriptors.noted()
        child = {how}()
        if child == 0:
            after = files()
            changed = {{fd for fd in before if after.get(fd) != before[fd]}}
            wrong = changed ^ set(noted) or {{
                fd for fd in noted if after[fd] != "/dev/null" or os.get_inheritable(fd)
            }} or file_descriptors.noted() or after.keys() - before.keys()
            os._exit(1 if wrong else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert files() == before and file_descriptors.noted() == noted
        move(one, two)
        """
    )


def test_no_descriptor_left_for_dev_null():
    """Each makes room for the next."""
    run(
        """
        import resource
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        noted = file_descriptors.noted()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, most))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

        def check():
            os.close(taken[-1])  # for a look at what there is
            after = files()
            assert all(after[fd] == "/dev/null" for fd in noted), after

        in_child(check)
        """
    )


def test_what_others_open_is_handed_down_as_ever():
    """By other threads, before a connector opens, meanwhile and after."""
    run(
        """
        libc = ctypes.CDLL(None, use_errno=True)
        made, stop = [], threading.Event()

        def busy():
            while not stop.is_set():
                ends = socket.socketpair()
                raw = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
                pipe = os.pipe()
                os.set_inheritable(pipe[0], True)
                short = os.dup(pipe[0])
                os.close(short)  # a number that somebody else is given next
                made.append((ends, raw, pipe))
                stop.wait(0.001)

        resource = __import__("resource")
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(made) < 20:
            stop.wait(0.001)
        connectors = [nc.Connector() for _ in range(4)]
        for connector in connectors:
            move(connectors[0], connector)
        connectors.pop().close_blocking()
        count = len(made)
        while len(made) < count + 20:
            stop.wait(0.001)
        stop.set()
        for thread in threads:
            thread.join()
        before = files()
        for ends, raw, pipe in made:
            assert not os.get_inheritable(ends[0].fileno())
            assert os.get_inheritable(raw) and os.get_inheritable(pipe[0])

        def check():
            after = files()
            for ends, raw, pipe in made:
                for fd in (ends[0].fileno(), ends[1].fileno(), raw, *pipe):
                    assert after[fd] == before[fd], (fd, before[fd], after.get(fd))
                ends[1].send(b"from the child")

        in_child(check)
        for ends, _, _ in made:
            assert ends[0].recv(100) == b"from the child"
        move(*connectors[:2])
        """
    )


def test_a_child_that_opens_and_ends_disturbs_nobody():
    """UCX's handlers at exit close numbers: those are still UCX's."""
    run(
        """
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        child = os.fork()
        if child == 0:
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        move(one, two)
        """
    )


def test_other_programs_get_nothing():
    run(
        """
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        before = files()
        mine = {before[fd] for fd in file_descriptors.noted() if ":[" in before[fd]}
        mine -= {"anon_inode:[eventpoll]", "anon_inode:[eventfd]"}
        assert len(mine) > 10
        code = "import os; print(*(os.readlink(e.path) for e in os.scandir('/proc/self/fd')))"
        for start in (
            lambda: subprocess.run([sys.executable, "-c", code], close_fds=False, check=True,
                                   stdout=subprocess.PIPE, text=True).stdout,
            lambda: os.popen(f'{sys.executable} -c "{code}"').read(),
        ):
            found = start()
            assert "pipe:[" in found
            assert not [path for path in mine if path in found], found
        """
    )


def test_forks_while_connectors_open_and_close():
    """A child never has one that is not replaced, whenever it is forked."""
    run(
        """
        # What looks for free ports opens sockets of Python's, which children may have.
        from nixl_connect.backend import ports
        ports.require_ports = lambda *_: None
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                with nc.Connector() as one, nc.Connector() as two:
                    move(one, two)

        one = nc.Connector()
        one._open()
        before = files()
        thread = threading.Thread(target=busy)
        thread.start()

        def check():
            for fd, path in files().items():
                if fd not in before and path.startswith("socket:"):
                    # The C library asks the kernel for addresses, and for the numbers of
                    # interfaces, on sockets of its own.
                    one = socket.socket(fileno=fd)
                    theirs = (socket.AF_NETLINK, None), (socket.AF_UNIX, "")
                    named = one.getsockname() if one.family == socket.AF_UNIX else None
                    assert (one.family, named) in theirs
                elif fd not in before:
                    assert "eventpoll" not in path

        try:
            looked = 0
            for _ in range(40):
                child = os.fork()
                if child == 0:
                    signal.alarm(5)  # it may spin in UCX's locks, and then tells nothing
                    status = 1
                    try:
                        check()
                        status = 0
                    finally:
                        os._exit(status)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert status in (0, -signal.SIGALRM), status
                looked += status == 0
            assert looked > 30
        finally:
            stop.set()
            thread.join()
        """
    )


def test_calls_that_cannot_be_led_are_told_once(monkeypatch, caplog):
    monkeypatch.setattr(redirect, "redirect", lambda: 3)
    monkeypatch.setattr(inheritance, "_warned", False)
    inheritance.keep_from_children()
    inheritance.keep_from_children()
    assert [record.getMessage()[:7] for record in caplog.records] == ["3 calls"]


def test_none_of_them_fails_here():
    assert redirect.redirect() == 0


def test_which_libraries_are_nixls(tmp_path):
    """In a wheel, all that is in its folders; elsewhere, those with such names."""
    wheel = tmp_path / ".nixl_cu12.mesonpy.libs" / "libnixl_capi.so"
    wheel.parent.mkdir()
    wheel.touch()
    folders = [str(wheel.parent), str(tmp_path / "nixl_cu12.libs")]
    assert inheritance.folders_of(str(wheel)) == folders
    (tmp_path / "link.so").symlink_to(wheel)
    assert inheritance.folders_of(str(tmp_path / "link.so")) == folders
    assert inheritance.folders_of("/usr/lib/libnixl_capi.so") == []
    assert inheritance.folders_of("libnixl_capi.so") == []


def test_a_nixl_that_is_known_by_the_names_of_its_libraries(tmp_path):
    """As one that is installed for the whole system."""
    run(
        """
        from nixl_connect.backend import library
        (wheel, *_) = library.candidates()
        link = os.environ["LINK"]
        os.symlink(wheel.path, link)
        from nixl_connect.backend import inheritance
        inheritance.folders_of = lambda path: []
        before = files()
        one, two = nc.Connector(), nc.Connector()
        move(one, two)
        opened = files().keys() - before.keys()
        assert set(file_descriptors.noted()) == opened
        assert not [fd for fd in opened if os.get_inheritable(fd)]
        """,
        LINK=str(tmp_path / "libnixl_capi.so"),
    )
