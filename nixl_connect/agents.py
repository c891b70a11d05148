"""Starts agents with their transports, and proves what the rest of the package relies on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from nixl_connect._native import envelope
from nixl_connect._native.agent import Agent, AgentForkedError
from nixl_connect._native.capi import NativeError, status_name
from nixl_connect._native.envelope import Envelope
from nixl_connect.errors import BackendError
from nixl_connect.library import Library
from nixl_connect.ucx import with_defaults


def start_agent(name: str, plugins: Mapping[bytes, Mapping[bytes, bytes]]) -> Agent:
    """Start an agent with its transports.

    Parameters
    ----------
    name : str
        The agent's name.
    plugins : mapping of bytes to mapping of bytes to bytes
        Transports to start, and their options.

    Raises
    ------
    BackendError
        NIXL cannot start the agent or a transport, or was used before this process was forked.
    """
    try:
        agent = Agent(name.encode())
    except NativeError as error:
        raise BackendError(f"NIXL cannot start the agent {name!r}: {error}") from None
    except AgentForkedError:
        raise BackendError(
            "NIXL was used before this process was forked, and its transports do not survive a "
            "fork; start processes with multiprocessing's 'spawn' or 'forkserver'"
        ) from None
    plugin = b""
    try:
        for plugin, parameters in plugins.items():
            with contextlib.suppress(NativeError):  # then starting it fails, too
                agent.load_plugin(plugin)
            agent.create_backend(plugin, with_defaults(plugin, parameters))
    except NativeError as error:
        name, found = plugin.decode(), agent.plugins()
        reason = (
            "what it logged says why"
            if name in found
            else f"NIXL has no transport of that name; it has {', '.join(found)}"
        )
        raise BackendError(
            f"NIXL cannot start the transport {name!r}: {status_name(error.status)}; {reason}"
        ) from None
    return agent


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
    return connections, proof
