"""Starts agents with their transports, and proves what the rest of the package relies on."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Mapping

from nixl_connect._native import envelope
from nixl_connect._native.agent import Agent, AgentForkedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import Envelope
from nixl_connect.backend import hooks, shared_memory, threads
from nixl_connect.backend.files import require_files
from nixl_connect.backend.inheritance import keep_from_children
from nixl_connect.backend.library import Library
from nixl_connect.backend.ucx import settings_of, with_defaults, without_shared_memory
from nixl_connect.errors import BackendError

Plugins = Mapping[bytes, Mapping[bytes, bytes]]

# UCX may look for ever for what it does not find. It cannot be stopped: an agent that takes longer
# (seconds) is given up, and closed when it is there after all. Usual are some 0.03.
_LONGEST = 60.0
# What one agent takes at most: descriptors, and threads while it is started.
_FILES = 24
_THREADS = 2
# Bytes. A file's name may have 255.
_LONGEST_NAME = 200

# Those whose memory peers may know, by each transport's connection info: no two have the same.
_described: weakref.WeakValueDictionary[tuple[str, bytes], Agent] = weakref.WeakValueDictionary()


def require_agents(count: int, needed: int, what: str, plugins: Plugins) -> None:
    """Raise BackendError unless there is all that so many agents take.

    Where UCX is refused something in the middle it aborts the process, or tries again for ever.

    Parameters
    ----------
    count : int
        How many agents.
    needed : int
        How many threads, all in all.
    what : str
        What needs them, for the message.
    plugins : mapping of bytes to mapping of bytes to bytes
        The agents' transports, and their options.
    """
    require_files(count * _FILES, what)
    threads.require_threads(needed, what)
    if b"UCX" in plugins:
        from nixl_connect.backend.ports import require_ports

        require_ports(count, what, settings_of(with_defaults(b"UCX", plugins[b"UCX"])))


def start_agent(name: str, plugins: Plugins) -> Agent:
    """Start one agent: see `start_agents`."""
    (agent,) = start_agents([name], plugins)
    return agent


def start_agents(names: list[str], plugins: Plugins) -> list[Agent]:
    """Start agents with their transports, all at the same time.

    Parameters
    ----------
    names : list of str
        Their names.
    plugins : mapping of bytes to mapping of bytes to bytes
        Transports to start, and their options.

    Raises
    ------
    BackendError
        NIXL cannot start an agent or a transport, not in time or for want of something, or was used
        before this process was forked.
    """
    threads.require_real_threads()
    what = f"starting the agent {names[0]!r}"
    require_agents(len(names), len(names) * _THREADS, what, plugins)
    started: list[_Starting] = []
    agents = []
    try:
        # Made on this thread: while libraries are loaded, UCX has the program's signals, which must
        # wait. What has been made when that fails is in the list.
        started.extend(_Starting(_made(name, plugins), plugins, len(names)) for name in names)
        for starting in started:
            starting.begin()
        end = time.monotonic() + _LONGEST
        for name, starting in zip(names, started, strict=True):
            agent = starting.take(max(0.0, end - time.monotonic()))
            if agent is None:
                raise BackendError(
                    f"NIXL did not start the agent {name!r} within {_LONGEST:g} s, and is given "
                    "up: UCX may be looking for something that it does not find, such as a free "
                    "TCP port"
                )
            agents.append(agent)
    except BaseException:
        for starting in started:
            starting.give_up()
        raise
    return agents


def _made(name: str, plugins: Plugins) -> Agent:
    """Make an agent, and load what its transports are made of."""
    try:
        agent = Agent(name.encode(), _file_name(name).encode())
    except NativeError as error:
        from nixl_connect.backend.surroundings import why_no_agent

        reason = why_no_agent(_file_name(name))
        raise BackendError(f"NIXL cannot start the agent {name!r}: {error}; {reason}") from None
    except AgentForkedError:
        raise BackendError(
            "NIXL was used before this process was forked, and its transports do not survive a "
            "fork; start processes with multiprocessing's 'spawn' or 'forkserver'"
        ) from None
    for plugin, given in plugins.items():
        loading = (
            hooks.left_out_if_needless(settings_of(given))
            if plugin == b"UCX"
            else contextlib.nullcontext()
        )
        # Without a plugin starting it fails, too.
        with contextlib.suppress(NativeError), loading:
            agent.load_plugin(plugin)
    return agent


class _Starting:
    """The start of an agent's transports, on a thread that may be given up.

    Parameters
    ----------
    agent : Agent
        The agent, whose owner this is until it is taken.
    plugins : mapping of bytes to mapping of bytes to bytes
        The transports, and their options.
    together : int
        How many agents are started at the same time.
    """

    def __init__(self, agent: Agent, plugins: Plugins, together: int) -> None:
        self._agent = agent
        self._plugins = plugins
        self._together = together
        self._lock = threading.Lock()  # of two threads that may take it once
        self._thread = threading.Thread(target=self._run, name="nixl-open", daemon=True)
        self._done = True  # until there is a thread
        self._given_up = False
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Start the thread."""
        self._done = False
        try:
            threads.start(self._thread)
        except BackendError:
            self._done = True
            raise

    def _run(self) -> None:
        """Start them; close the agent if it was given up meanwhile."""
        error = None
        try:
            _start_transports(self._agent, self._plugins, self._together)
        except BaseException as raised:
            error = raised
        with self._lock:
            self._done, self._error = True, error
            given_up = self._given_up
        if given_up:
            self._agent.close()

    def take(self, patience: float) -> Agent | None:
        """Return the agent, or raise what its start raised; give it up if it is not there in time.

        Parameters
        ----------
        patience : float
            Most seconds to wait for it.
        """
        self._thread.join(patience)
        with self._lock:
            self._given_up = not self._done
            error, self._error = self._error, None
        if error is not None:
            self._agent.close()
            try:
                raise error
            finally:
                del error  # it has this frame
        return None if self._given_up else self._agent

    def give_up(self) -> None:
        """Have the agent closed: now, or when the thread that starts it is through."""
        with self._lock:
            self._given_up = True
            done = self._done
        if done:
            self._agent.close()


def _start_transports(agent: Agent, plugins: Plugins, together: int) -> None:
    plugin = b""
    try:
        for plugin, given in plugins.items():
            parameters = with_defaults(plugin, given)
            if plugin == b"UCX" and not shared_memory.is_usable(settings_of(parameters), together):
                parameters = without_shared_memory(parameters)
            agent.create_backend(plugin, parameters)
            keep_from_children()
    except NativeError as error:
        from nixl_connect.backend.surroundings import why_no_transport

        name, found = plugin.decode(), agent.plugins()
        reason = (
            why_no_transport()
            if name in found
            else f"NIXL has no transport of that name; it has {', '.join(found)}"
        )
        raise BackendError(
            f"NIXL cannot start the transport {name!r}: {status_name(error.status)}; {reason}"
        ) from None


def _file_name(name: str) -> str:
    """Return what NIXL is to call an agent: its name, if that may be a file's.

    NIXL's telemetry makes a file of that name.
    """
    safe = name.replace("/", "%2F")
    if len(safe.encode()) <= _LONGEST_NAME and safe not in (".", ".."):
        return safe
    import hashlib  # late, with OpenSSL behind it

    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return safe.encode()[: _LONGEST_NAME - 33].decode(errors="ignore") + "~" + digest


def describe_agent(agent: Agent, library: Library) -> tuple[bytes, Envelope]:
    """Return an agent's metadata with connection info and no regions, as it is and parsed.

    Parameters
    ----------
    agent : Agent
        With its transports started.
    library : Library
        Where NIXL came from, for messages.

    Raises
    ------
    BackendError
        NIXL lays out its metadata in a way that the parser does not know: then nothing could be
        checked before NIXL reads it.
    """
    name = agent.name.decode()
    try:
        connections = agent.partial_metadata(None, 0)
        proof = envelope.parse(connections)
        whole = envelope.parse(agent.metadata())
        if proof.agent != name or proof.connections != whole.connections:
            raise ValueError("its parts do not agree")
    except NativeError as error:
        raise BackendError(f"NIXL gives no metadata of the agent {name!r}: {error}") from None
    except ValueError as error:
        raise BackendError(
            f"NIXL {library.version or ''} at {library.path} lays out its metadata in a way that "
            f"this version of nixl-connect does not know: {error}"
        ) from None
    for transport in proof.connections.items():
        _described[transport] = agent
    return connections, proof


def is_here(connections: Mapping[str, bytes]) -> bool:
    """Whether connection info is of an agent of this process, whose addresses are this one's."""
    for transport in connections.items():  # noqa: SIM110, no generator: each beginning comes here
        if transport in _described:
            return True
    return False
