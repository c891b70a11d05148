"""Settings of UCX, as NIXL takes them: names and values in one option of the transport.

A variable of the environment, ``UCX_`` and the name, goes before what is set here.
"""

from __future__ import annotations

from collections.abc import Mapping

from nixl_connect.backend import hooks

_OPTION = b"engine_config"
# UCX waits for a TCP connection where it is asked for one: a host that does not answer, which may
# take minutes to give up on, would hold up every other peer.
_DEFAULTS = {b"TCP_CONN_NB": b"y"}
# A cache of registrations that UCX would look for, and say that it does not have.
_WITHOUT_HOOKS = {b"RCACHE_ENABLE": b"n"}


def settings_of(parameters: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the settings among a transport's options."""
    items = parameters.get(_OPTION, b"").split(b",")
    return dict(item.split(b"=", 1) for item in items if b"=" in item)


def with_settings(
    parameters: Mapping[bytes, bytes], settings: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """Return a transport's options with these settings alone."""
    return {**parameters, _OPTION: b",".join(map(b"=".join, settings.items()))}


def without_shared_memory(parameters: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return a transport's options with which UCX makes no files of shared memory.

    It has other ways: shared memory of System V, copies between processes, the loopback device.
    """
    return with_settings(parameters, settings_of(parameters) | {b"POSIX_SHM_MIN_SIZE": b"inf"})


def with_defaults(plugin: bytes, parameters: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return a transport's options with what this package sets for UCX, unless the user does."""
    if plugin != b"UCX":
        return dict(parameters)
    defaults = _DEFAULTS | (_WITHOUT_HOOKS if hooks.are_left_out() else {})
    return with_settings(parameters, defaults | settings_of(parameters))
