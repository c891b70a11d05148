"""Settings of UCX among a transport's options."""

import pytest

from nixl_connect.backend import hooks, ucx


@pytest.mark.parametrize(
    ("given", "handed"),
    [
        ({}, {b"engine_config": b"TCP_CONN_NB=y"}),
        ({b"engine_config": b""}, {b"engine_config": b"TCP_CONN_NB=y"}),
        (
            {b"engine_config": b"TLS=tcp,RNDV_THRESH=8", b"num_workers": b"2"},
            {b"engine_config": b"TCP_CONN_NB=y,TLS=tcp,RNDV_THRESH=8", b"num_workers": b"2"},
        ),
        ({b"engine_config": b"TCP_CONN_NB=n"}, {b"engine_config": b"TCP_CONN_NB=n"}),
        ({b"engine_config": b"A=b=c,nothing"}, {b"engine_config": b"TCP_CONN_NB=y,A=b=c"}),
    ],
)
def test_defaults_come_before_what_the_user_says(monkeypatch, given, handed):
    monkeypatch.setattr(hooks, "_left_out", False)
    before = dict(given)
    assert ucx.with_defaults(b"UCX", given) == handed
    assert given == before


def test_without_hooks_there_is_no_cache(monkeypatch):
    monkeypatch.setattr(hooks, "_left_out", True)
    assert ucx.with_defaults(b"UCX", {}) == {b"engine_config": b"TCP_CONN_NB=y,RCACHE_ENABLE=n"}
    given = {b"engine_config": b"RCACHE_ENABLE=y"}
    assert ucx.with_defaults(b"UCX", given) == {b"engine_config": b"TCP_CONN_NB=y,RCACHE_ENABLE=y"}


def test_other_transports_are_left_alone():
    assert ucx.with_defaults(b"POSIX", {b"engine_config": b"x"}) == {b"engine_config": b"x"}
