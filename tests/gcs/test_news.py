"""What nodes are told of each other: whole and at once who moved, in bounded parts what is free."""

from __future__ import annotations

import pytest

from actorlib.gcs.news import News
from actorlib.transport import limits
from actorlib.transport.messages import NodesChanged, NodesFree


@pytest.fixture
def told(port, make):
    """Twelve nodes that have been told of each other, and what tells them."""

    class Told:
        def __init__(self):
            self.views, self.links = {}, {}
            self.news = News(port, self.views, self.links)

        def join(self, number):
            name = f"n{number}"
            node_id = make.node_id(name)
            self.views[node_id] = make.register_node(name)
            self.links[node_id] = make.link(name, name)
            self.views[node_id] = Free(10)
            return node_id

        def free_as_told(self, link):
            return [dict(message.nodes) for message in link.take() if type(message) is NodesFree]

    class Free:
        def __init__(self, cpus):
            self.available = {"CPU": cpus}

    Told.Free = Free
    return Told()


def test_what_changed_is_told_to_all_in_one_message_that_they_share(told, port):
    ids = [told.join(number) for number in range(4)]
    told.news.changed(ids[0])
    told.news.changed(ids[1])
    assert len(port.timers) == 1
    port.fire()
    got = [link.take() for link in told.links.values()]
    assert all(len(messages) == 1 for messages in got) and len({id(messages[0]) for messages in got}) == 1
    assert got[0][0] == NodesFree(((ids[0], {"CPU": 10}), (ids[1], {"CPU": 10})))
    assert port.timers == []


def test_a_node_is_not_told_of_itself_alone(told, port):
    ids = [told.join(number) for number in range(3)]
    told.news.changed(ids[1])
    port.fire()
    assert [len(told.links[node_id].take()) for node_id in ids] == [1, 0, 1]


def test_who_moved_is_told_whole_to_everybody(told, port):
    ids = [told.join(number) for number in range(3)]
    told.news.moved(ids[2])
    port.fire()
    assert [message for link in told.links.values() for message in link.take()] == [
        NodesChanged((told.views[ids[2]],))
    ] * 2


def test_in_a_round_everybody_hears_of_all_that_changed_a_part_at_a_time(told, port, monkeypatch):
    monkeypatch.setattr(limits, "views_in_message_max", 3)
    ids = [told.join(number) for number in range(12)]
    for node_id in ids:
        told.news.changed(node_id)
    heard = {node_id: {} for node_id in ids}
    for _ in range(4):
        port.fire()
        parts = set()
        for node_id, link in told.links.items():
            (part,) = told.free_as_told(link)
            assert len(part) == 3 and not part.keys() & heard[node_id].keys()
            heard[node_id].update(part)
            parts.add(tuple(part))
        assert len(parts) > 1, "all nodes were told of the same part at the same time"
    assert all(list(sorted(known)) == sorted(ids) for known in heard.values())
    assert port.timers == []


def test_who_leaves_in_a_round_makes_nobody_miss_a_part(told, port, monkeypatch):
    monkeypatch.setattr(limits, "views_in_message_max", 2)
    ids = [told.join(number) for number in range(8)]
    for node_id in ids:
        told.news.changed(node_id)
    port.fire()
    gone = ids[0]
    del told.links[gone]
    for _ in range(3):
        port.fire()
    for node_id in ids[1:]:
        known = {told_of for part in told.free_as_told(told.links[node_id]) for told_of in part}
        assert known | {gone, node_id} == set(ids)


def test_what_changes_in_a_round_is_told_as_it_is_then_and_again_in_the_next(told, port, monkeypatch):
    monkeypatch.setattr(limits, "views_in_message_max", 1)
    one, other, third = (told.join(number) for number in range(3))
    told.news.changed(one)
    told.news.changed(other)
    port.fire()
    told.views[one] = told.Free(4)
    told.news.changed(one)
    port.fire()
    port.fire()
    told_of_one = [part[one]["CPU"] for part in told.free_as_told(told.links[third]) if one in part]
    assert told_of_one[-1] == 4 and len(told_of_one) == 2
    assert port.timers == []


def test_the_more_nodes_there_are_the_more_rarely_each_is_told(told, port, monkeypatch):
    monkeypatch.setattr(limits, "views_told_per_s_max", 20)
    ids = [told.join(number) for number in range(10)]
    told.news.changed(ids[0])
    assert port.timers[0][0] == pytest.approx(0.25)
