"""Key-value pairs: exact effects, and random operations against a dictionary."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorlib.gcs.kv import KeyValues
from actorlib.transport.messages import KvDelete, KvGet, KvKeys, KvPut, KvReply


def put(kv, link, key, value, overwrite=True, space="s"):
    kv.put(link, KvPut(1, space, key, value, overwrite))
    return link.take()


def get(kv, link, key, space="s"):
    kv.get(link, KvGet(2, space, key))
    return link.take()


def test_what_is_put_is_got_and_says_whether_it_was_there_before(make, port):
    kv, link = KeyValues(port), make.link("a")
    assert put(kv, link, b"k", b"one") == [KvReply(1, False, b"", ())]
    assert put(kv, link, b"k", b"two") == [KvReply(1, True, b"", ())]
    assert get(kv, link, b"k") == [KvReply(2, True, b"two", ())]
    assert get(kv, link, b"other") == [KvReply(2, False, b"", ())]


def test_a_pair_is_persisted_before_its_put_is_answered(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"k", b"one")
    assert [effect[0] for effect in port.effects] == ["persist", "send"]
    assert list(port.rows.values()) == [b"one"]


def test_without_overwrite_the_first_value_stays_and_nothing_is_written(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"k", b"one")
    port.effects.clear()
    assert put(kv, link, b"k", b"two", overwrite=False) == [KvReply(1, True, b"", ())]
    assert get(kv, link, b"k") == [KvReply(2, True, b"one", ())]
    assert "persist" not in [effect[0] for effect in port.effects]


def test_the_same_value_again_is_not_written_again(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"k", b"one")
    put(kv, link, b"k", b"one")
    assert [effect[0] for effect in port.effects] == ["persist", "send", "send"]


def test_an_empty_value_is_there(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"k", b"")
    assert get(kv, link, b"k") == [KvReply(2, True, b"", ())]
    assert list(port.rows.values()) == [b""]


def test_a_value_is_kept_as_it_was_when_the_senders_buffer_changes(make, port):
    kv, link = KeyValues(port), make.link("a")
    buffer = bytearray(b"one")
    put(kv, link, b"k", memoryview(buffer))
    buffer[:] = b"two"
    assert get(kv, link, b"k") == [KvReply(2, True, b"one", ())]


def test_a_deleted_pair_is_gone_also_from_disk_and_deleting_again_says_so(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"k", b"one")
    kv.delete(link, KvDelete(3, "s", b"k"))
    kv.delete(link, KvDelete(4, "s", b"k"))
    assert link.take() == [KvReply(3, True, b"", ()), KvReply(4, False, b"", ())]
    assert port.rows == {}
    assert get(kv, link, b"k") == [KvReply(2, False, b"", ())]


def test_namespaces_are_apart(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"k", b"one", space="s")
    put(kv, link, b"k", b"two", space="t")
    kv.delete(link, KvDelete(3, "t", b"k"))
    link.take()
    assert get(kv, link, b"k", "s") == [KvReply(2, True, b"one", ())]
    assert get(kv, link, b"k", "t") == [KvReply(2, False, b"", ())]


def test_keys_are_listed_by_prefix_within_their_namespace(make, port):
    kv, link = KeyValues(port), make.link("a")
    for space, key in (("s", b"ab"), ("s", b"abc"), ("s", b"b"), ("t", b"abd")):
        put(kv, link, key, b"", space=space)
    kv.keys(link, KvKeys(5, "s", b"ab"))
    kv.keys(link, KvKeys(6, "s", b""))
    kv.keys(link, KvKeys(7, "u", b""))
    assert [(m.found, set(m.keys)) for m in link.take()] == [
        (True, {b"ab", b"abc"}),
        (True, {b"ab", b"abc", b"b"}),
        (False, set()),
    ]


def test_a_key_may_hold_any_byte_and_comes_back_from_disk(make, port):
    kv, link = KeyValues(port), make.link("a")
    put(kv, link, b"a\0b\xff", b"one")
    put(kv, link, b"", b"two", space="")
    again = KeyValues(port)
    for (_, key), value in port.rows.items():
        again.load(key, value)
    assert again.values == {("s", b"a\0b\xff"): b"one", ("", b""): b"two"}


SPACES = st.sampled_from(["", "s", "t", "ü"])
KEYS = st.binary(max_size=2)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), SPACES, KEYS, st.binary(max_size=3), st.booleans()),
    st.tuples(st.just("delete"), SPACES, KEYS),
    st.tuples(st.just("keys"), SPACES, KEYS),
)


@settings(deadline=None, database=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, max_size=30))
def test_random_operations_answer_as_a_dictionary_would_and_the_disk_agrees(make, operations):
    port, link, model = make.Port(), make.link("a"), {}
    kv = KeyValues(port)
    for kind, space, key, *rest in operations:
        if kind == "put":
            value, overwrite = rest
            kv.put(link, KvPut(1, space, key, value, overwrite))
            assert link.take()[0].found == ((space, key) in model)
            if overwrite or (space, key) not in model:
                model[space, key] = value
        elif kind == "delete":
            kv.delete(link, KvDelete(1, space, key))
            assert link.take()[0].found == (model.pop((space, key), None) is not None)
        else:
            kv.keys(link, KvKeys(1, space, key))
            assert set(link.take()[0].keys) == {k for s, k in model if s == space and k.startswith(key)}
    assert kv.values == model
    again = KeyValues(port)
    for (_, key), value in port.rows.items():
        again.load(key, value)
    assert again.values == model
