"""Which notification keys have been used."""

from nixl_connect._native.used import UsedKeys

LIMIT = 8192


def key(number):
    return b"%032x" % number


def test_a_key_serves_once():
    keys = UsedKeys()
    assert keys.claim(key(1))
    assert not keys.claim(key(1))
    keys.give_back(key(1))
    assert keys.claim(key(1))


def test_sealed_keys_serve_once_and_those_of_other_forms_as_often_as_they_like():
    keys = UsedKeys()
    assert keys.claim(key(1) + b".s1.and so on")
    assert not keys.claim(key(1) + b".s1.and so on")
    for _ in range(3):
        assert keys.claim(b"a form of its own")


def test_the_latest_are_remembered_and_no_more():
    keys = UsedKeys()
    count = 5 * LIMIT // 2
    assert all(keys.claim(key(number)) for number in range(count))
    assert not any(keys.claim(key(number)) for number in range(count - LIMIT, count))
    assert LIMIT <= len(keys) <= 2 * LIMIT
    keys.give_back(key(count - LIMIT))
    assert keys.claim(key(count - LIMIT))
    assert keys.claim(key(0))


def test_what_was_remembered_first_is_given_back_too():
    keys = UsedKeys()
    assert keys.claim(key(0))
    assert all(keys.claim(key(number)) for number in range(1, LIMIT + 10))
    keys.give_back(key(0))
    assert keys.claim(key(0))
