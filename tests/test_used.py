"""Which notification keys have been used."""

import pytest

from nixl_connect import used
from nixl_connect.errors import StateError


def key(number):
    return b"%032x" % number


def test_a_key_serves_once():
    keys = used.UsedKeys()
    keys.claim(key(1))
    with pytest.raises(StateError, match="one transfer"):
        keys.claim(key(1))
    keys.give_back(key(1))
    keys.claim(key(1))


def test_sealed_keys_serve_once_and_those_of_other_forms_as_often_as_they_like():
    keys = used.UsedKeys()
    keys.claim(key(1) + b".s1.and so on")
    with pytest.raises(StateError):
        keys.claim(key(1) + b".s1.and so on")
    for _ in range(3):
        keys.claim(b"a form of its own")


def test_the_latest_are_remembered_and_no_more():
    keys = used.UsedKeys()
    count = 5 * used._LIMIT // 2
    for number in range(count):
        keys.claim(key(number))
    for number in range(count - used._LIMIT, count):
        with pytest.raises(StateError):
            keys.claim(key(number))
    assert len(keys._keys) == used._LIMIT
    keys.give_back(key(count - used._LIMIT))
    keys.claim(key(count - used._LIMIT))
    keys.claim(key(0))
