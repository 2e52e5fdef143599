"""The GCS as a whole over a journal that commits when told to: nobody hears of what a crash could undo."""

from __future__ import annotations

import pytest

from actorlib.transport import codec, limits
from actorlib.transport import messages as m


class World:
    def __init__(self, make):
        self.make, self.host, self.journal = make, make.Host(), make.Journal()
        self.service = make.service(self.host, self.journal)
        self.links = {}

    def link(self, name, node="n"):
        return self.links.setdefault(name, self.make.link(name, node))

    def tell(self, link, message):
        self.service.handlers[type(message)](link, message)

    def node(self, name, **more):
        link = self.link(name, name)
        self.tell(link, self.make.register_node(name, **more))
        return link


@pytest.fixture
def world(make):
    return World(make)


def asks(make):
    return [
        m.KvPut(1, "s", b"k", b"v", True),
        make.job(request_id=1),
        m.ActorRegister(1, make.spec("name"), False),
        make.group("group")._replace(request_id=1),
    ]


def test_no_request_is_answered_before_its_record_is_committed(world, make):
    for number, message in enumerate(asks(make)):
        link = world.link(f"c{number}")
        world.tell(link, message)
        assert link.got == [] and world.journal.commits == number
        world.host.settle()
        assert [getattr(answer, "request_id", None) for answer in link.got] == [1]
        assert world.journal.commits == number + 1
    assert {table: len(rows) for table, rows in world.journal.tables.items()} == {
        "kv": 1,
        "jobs": 1,
        "actors": 1,
        "groups": 1,
    }


def test_all_requests_of_a_turn_share_one_commit_and_are_answered_in_order(world):
    link = world.link("c")
    for number in range(10):
        world.tell(link, m.KvPut(number, "s", b"%d" % number, b"v", True))
    world.tell(link, m.KvGet(10, "s", b"3"))
    assert link.got == [] and len(world.host.soon) == 1
    world.host.settle()
    assert world.journal.commits == 1 and [reply.request_id for reply in link.got] == list(range(11))
    assert link.got[-1].value == b"v"


def test_questions_alone_commit_nothing(world):
    link = world.link("c")
    world.tell(link, m.KvGet(1, "s", b"k"))
    world.host.settle()
    assert world.journal.commits == 0 and link.got == [m.KvReply(1, False, b"", ())]


def test_a_node_is_told_to_start_an_actor_only_when_the_actor_is_on_disk(world, make):
    node = world.node("n")
    world.host.settle()
    node.take()
    world.tell(world.link("c"), m.ActorRegister(1, make.spec(), False))
    assert node.got == []
    world.host.settle()
    assert node.take() == [m.StartActor(make.spec(), 0, 0)]
    assert list(world.journal.tables["actors"]) == [make.id("actor")]


def test_subscribers_hear_of_a_change_only_when_it_is_on_disk(world, make):
    node, reader = world.node("n"), world.link("reader")
    world.tell(world.link("c"), m.ActorRegister(1, make.spec(), False))
    world.tell(reader, m.ActorSubscribe(make.id("actor")))
    world.host.settle()
    reader.take()
    before = world.journal.tables["actors"][make.id("actor")]
    world.tell(node, m.ActorCreated(make.id("actor"), 0, make.address("w", "n")))
    assert reader.got == []
    world.host.settle()
    assert [update.state for update in reader.take()] == ["ALIVE"]
    assert world.journal.tables["actors"][make.id("actor")] != before


@pytest.fixture
def full(world, make):
    """A node, an actor that lives there, a reader who wants to hear of it, and a disk that takes nothing any more."""
    world.node = world.link("node", "n")
    world.tell(world.node, make.register_node("n"))
    world.client, world.reader = world.link("c"), world.link("reader")
    world.tell(world.client, m.ActorRegister(1, make.spec(), False))
    world.tell(world.node, m.ActorCreated(make.id("actor"), 0, make.address("w", "n")))
    world.tell(world.reader, m.ActorSubscribe(make.id("actor")))
    world.host.settle()
    for link in (world.node, world.client, world.reader):
        link.take()
    world.journal.full = True
    return world


def make_room(world):
    world.journal.full = False
    later, world.host.later = world.host.later, []
    for callback in later:
        callback()
    world.host.settle()


def refusals(link):
    return [(type(reply), reply.request_id, getattr(reply, "kind", "")) for reply in link.take()]


def test_what_was_to_be_made_on_a_full_disk_is_refused_and_is_not_in_memory_either(full, make):
    full.tell(full.client, m.KvPut(5, "s", b"k", b"v", True))
    full.tell(full.client, m.ActorRegister(6, make.spec("new", id="new"), False))
    full.tell(full.client, make.group("group", request_id=7))
    full.tell(full.client, make.job(request_id=8))
    full.tell(full.client, m.CheckpointPut(9, make.id("actor"), 0, 1, b"state", 3))
    full.host.settle()
    assert refusals(full.client) == [(m.Failure, number, "OutOfDiskError") for number in (5, 6, 7, 8, 9)]
    service = full.service
    assert not service.kv.values and not service.groups.groups and not service.jobs.jobs
    assert list(service.actors.actors) == [make.id("actor")] and not service.actors.names
    assert full.node.got == full.reader.got == []
    make_room(full)
    full.tell(full.client, m.CheckpointGet(10, make.id("actor"), -1))
    full.tell(full.client, m.ActorRegister(11, make.spec("new", id="new"), False))
    full.host.settle()
    assert [type(reply) for reply in full.client.take()] == [m.CheckpointReply, m.ActorRegistered]
    assert full.journal.tables["actors"].keys() == {make.id("actor"), make.id("new")}
    assert not full.journal.tables.get("kv") and not full.journal.tables.get("groups")


def test_while_the_disk_is_full_requests_are_refused_before_anything_moves_and_who_looks_is_answered(full, make):
    full.tell(full.client, m.KvPut(5, "s", b"k", b"v", True))
    full.host.settle()
    full.client.take()
    full.tell(full.client, m.ActorKill(6, make.id("actor"), True))
    assert refusals(full.client) == [(m.Failure, 6, "OutOfDiskError")], "at once, not when the turn ends"
    full.tell(full.client, m.KvGet(7, "s", b"k"))
    full.tell(full.client, m.ActorRegister(1, make.spec(), False))  # done before: only asked again
    full.tell(full.node, m.Heartbeat(1))
    full.host.settle()
    assert [type(reply) for reply in full.client.take()] == [m.KvReply]
    assert [type(reply) for reply in full.node.take()] == [m.HeartbeatSeen]
    make_room(full)
    assert [(type(reply), reply.request_id) for reply in full.client.take()] == [(m.ActorRegistered, 1)]
    full.tell(full.client, m.ActorKill(8, make.id("actor"), True))
    full.host.settle()
    assert full.client.take() == [m.Done(8)]


def test_what_has_happened_is_kept_and_said_once_there_is_room(full, make):
    death = m.Death(make.address("w").process_id, make.node_id("n"), 7, 1, None, False, "ended with 1", "")
    ended = m.ActorExited(make.id("actor"), 0, False, death, 3)
    full.tell(full.node, ended)
    full.host.settle()
    assert full.node.got == full.reader.got == [] and full.service.actors.actors[make.id("actor")].state.value == "DEAD"
    make_room(full)
    assert full.node.take() == [m.Done(3)]
    assert [update.state for update in full.reader.take()] == ["DEAD"]
    again = full.journal.rows("actors")
    assert codec.decode_batch(again[0][1])[1].state == "DEAD"


def test_an_order_to_end_in_the_turn_that_finds_the_disk_full_says_so_and_is_carried_out_later(full, make):
    full.tell(full.client, m.ActorKill(6, make.id("actor"), True))
    full.host.settle()
    (reply,) = full.client.take()
    assert reply.kind == "OutOfDiskError" and "will end once there is room" in reply.text
    assert full.node.got == full.reader.got == []
    make_room(full)
    assert [type(order) for order in full.node.take()] == [m.StopActor]
    assert [update.state for update in full.reader.take()] == ["DEAD"]


def test_a_disk_that_stays_full_is_tried_again_and_again(full):
    full.tell(full.client, m.KvPut(5, "s", b"k", b"v", True))
    full.host.settle()
    for _ in range(3):
        assert full.service.backlog.reason
        (later,) = [callback for callback in full.host.later if callback == full.service._write_again]
        full.host.later = []
        later()
    make_room(full)
    assert not full.service.backlog.reason


def test_a_node_that_registers_again_needs_nothing_of_the_disk(full, make):
    lives = m.Hosted(make.id("actor"), 0, make.address("w", "n"))
    full.tell(
        full.node, make.register_node("n")._replace(holds=m.Holdings((lives,), (make.address("owner").process_id,), ()))
    )
    full.host.settle()
    assert [type(reply) for reply in full.node.take()] == [m.NodeRegistered]
    assert not full.service.backlog.reason


def test_a_checkpoint_can_be_read_in_the_turn_in_which_it_was_put(world, make):
    link = world.link("c")
    world.tell(link, m.ActorRegister(1, make.spec(), False))
    world.tell(link, m.CheckpointPut(2, make.id("actor"), 0, 1, b"state", 3))
    world.tell(link, m.CheckpointGet(3, make.id("actor"), -1))
    world.host.settle()
    assert link.take()[1:] == [m.Done(2), m.CheckpointReply(3, 1, b"state", (1,))]
    world.journal.tables["checkpoints"].clear()  # from now on the disk alone is asked
    world.tell(link, m.CheckpointGet(4, make.id("actor"), -1))
    world.host.settle()
    assert link.take() == [m.CheckpointReply(4, -1, b"", (1,))]
    world.tell(link, m.CheckpointPut(2, make.id("actor"), 0, 1, b"state", 3))
    world.host.settle()
    link.take()
    world.tell(link, m.CheckpointGet(4, make.id("actor"), -1))
    world.host.settle()
    assert link.take() == [m.CheckpointReply(4, 1, b"state", (1,))]
    world.tell(link, m.ActorKill(5, make.id("actor"), True))
    world.tell(link, m.CheckpointPut(6, make.id("actor"), 0, 2, b"late", 3))
    world.host.settle()
    assert [type(reply) for reply in link.take()] == [m.Done, m.Failure]


def test_a_new_node_gets_the_actors_and_groups_that_wait(world, make):
    link = world.link("c")
    world.tell(link, m.ActorRegister(1, make.spec(owner=make.address("owner", "elsewhere")), False))
    world.tell(link, make.group())
    world.host.settle()
    node = world.node("n")
    world.host.settle()
    assert {type(message) for message in node.take()} == {m.NodeRegistered, m.StartActor, m.PrepareBundles}


def test_an_actor_in_a_group_starts_when_its_group_is_there(world, make):
    node, link = world.node("n"), world.link("c")
    world.tell(link, make.group())
    world.tell(link, m.ActorRegister(1, make.spec(strategy=("group", make.id("group"), 1, False)), False))
    world.host.settle()
    assert m.StartActor not in {type(message) for message in node.take()}
    for _ in range(2):
        world.tell(node, m.BundlesPrepared(0, make.id("group"), 1, True, ""))
    world.host.settle()
    assert [type(message) for message in node.take()] == [m.CommitBundles, m.StartActor]


def test_the_end_of_a_job_takes_its_actors_and_groups_and_is_told_to_every_node_once(world, make):
    a, b, link = world.node("a"), world.node("b"), world.link("c")
    world.tell(link, make.job())
    world.tell(link, m.ActorRegister(1, make.spec("gone"), False))
    world.tell(link, m.ActorRegister(2, make.spec("stays", id="stays", detached=True), False))
    world.tell(link, make.group("group"))
    world.host.settle()
    a.take(), b.take()
    world.service.job_ended(make.job_id("job"), "its driver ended")
    world.service.job_ended(make.job_id("job"), "again")
    world.host.settle()
    for node in (a, b):
        assert [message for message in node.take() if type(message) is m.JobEnded] == [
            m.JobEnded(make.job_id("job"), "its driver ended")
        ]
    assert [name for _, name in world.service.actors.names] == ["stays"]
    assert world.service.groups.groups == {} and world.journal.tables["jobs"] == {}


def test_a_node_whose_session_has_ended_is_lost_when_it_is_silent_and_its_actors_restart_elsewhere(world, make):
    a, b, link = world.node("a"), world.node("b"), world.link("c")
    world.tell(link, m.ActorRegister(1, make.spec(owner=make.address("o", "a"), max_restarts=1), False))
    world.tell(a, m.ActorCreated(make.id("actor"), 0, make.address("w", "a")))
    world.host.settle()
    b.take()
    world.service.link_down(make.link("a", "a"), "an earlier link of the node")
    world.host.settle()
    assert b.take() == []
    world.service.link_down(a, "no answer")
    world.host.settle()
    assert b.take() == []
    world.service.nodes.lost(make.node_id("a"), "nothing was heard of it")
    world.host.settle()
    (order,) = [message for message in b.take() if type(message) is m.StartActor]
    assert order.incarnation == 1


def test_what_the_state_query_shows_is_limited_and_says_how_much_it_left_out(world):
    link = world.link("asker")
    for name in "abc":
        world.node(name)
    world.host.settle()
    world.tell(link, m.StateQuery(1, "nodes", 2))
    world.tell(link, m.StateQuery(2, "nonsense", 2))
    rows, refused = link.take()
    assert [row["hostname"] for row in rows.rows] == ["host-a", "host-b"] and rows.truncated == 1
    assert type(refused) is m.Failure and "nonsense" in refused.text


# -- draining a node ---------------------------------------------------------------------------------------------------
def test_a_node_is_told_to_drain_and_whoever_asked_hears_that_it_was(world, make):
    node, asker = world.node("n"), world.link("asker", "n")
    world.host.settle()
    node.take()
    world.tell(asker, m.DrainNode(5, node.peer.node_id, 30.0, "maintenance"))
    world.host.settle()
    assert node.take() == [m.MustDrain(30.0, "maintenance")] and asker.take() == [m.Done(5)]


def test_a_node_that_is_not_there_can_not_drain_and_the_answer_says_so(world, make):
    asker = world.link("asker", "n")
    world.tell(asker, m.DrainNode(5, make.node_id("x"), 30.0, "maintenance"))
    world.host.settle()
    (failure,) = asker.take()
    assert type(failure) is m.Failure and failure.kind == "ValueError" and "is not alive" in failure.text


def test_no_actor_is_placed_on_a_node_that_drains_and_those_without_a_place_wait_for_one(world, make):
    node = world.node("n")
    world.host.settle()
    node.take()
    world.tell(node, m.NodeDrains(1, 30.0, "maintenance", 8))
    owner = world.link("owner", "n")
    world.tell(owner, m.ActorRegister(1, make.spec(owner=owner.peer), False))
    world.host.settle()
    assert node.take() == [m.Done(8)]
    other = world.node("o")
    world.host.settle()
    assert [type(message) for message in other.take()] == [m.NodeRegistered, m.StartActor]


# -- what durable actors leave behind ----------------------------------------------------------------------------------
DURABLE = {"checkpoint": {"every_calls": 1}, "max_restarts": 0}


def ends(world, make, how):
    """A durable actor that lives on a node, and how it ends. Gives what the node is told of its files."""
    node = world.node("n")
    owner = world.link("owner", "n")
    spec = make.spec(owner=owner.peer, **DURABLE)
    world.tell(owner, m.ActorRegister(1, spec, False))
    worker = make.address("w", "n")
    world.tell(node, m.ActorCreated(spec.actor_id, 0, worker))
    world.tell(owner, m.CheckpointPut(2, spec.actor_id, 0, 1, b"state", 2))
    world.host.settle()
    node.take()
    how(owner, node, spec, worker)
    world.host.settle()
    return [message for message in node.take() if type(message) is m.LogForget]


def killed(world):
    return lambda owner, node, spec, worker: world.tell(owner, m.ActorKill(9, spec.actor_id, True, "", -1))


def crashed(world):
    def how(owner, node, spec, worker):
        death = m.Death(worker.process_id, worker.node_id, 1, None, 11, False, "SIGSEGV", "")
        world.tell(node, m.ActorExited(spec.actor_id, 0, False, death, 9))

    return how


def test_the_log_of_an_actor_that_was_killed_is_forgotten_by_all_nodes_and_its_checkpoints_are_not(world, make):
    other = world.node("o")
    world.host.settle()
    other.take()
    told = ends(world, make, killed(world))
    assert told == [m.LogForget(make.id("actor"), False)]
    assert m.LogForget(make.id("actor"), False) in other.take()
    assert world.service.checkpoints.numbers[make.id("actor")] == [1]


@pytest.mark.parametrize("state", ["dead", "alive"])
def test_a_node_that_was_away_drops_what_is_left_of_actors_that_are_gone(world, make, state):
    ends(world, make, killed(world) if state == "dead" else lambda *_: None)
    back = world.node("back")
    world.host.settle()
    back.take()
    world.tell(back, m.LogsHeld((make.id("actor"), make.id("of a record that was dropped"))))
    world.host.settle()
    expected = [m.LogForget(make.id("actor"), False)] if state == "dead" else []
    assert back.take() == [*expected, m.LogForget(make.id("of a record that was dropped"), True)]


def test_what_an_actor_did_before_it_crashed_for_good_stays_on_a_node_that_comes_back(world, make):
    ends(world, make, crashed(world))
    back = world.node("back")
    world.host.settle()
    back.take()
    world.tell(back, m.LogsHeld((make.id("actor"),)))
    world.host.settle()
    assert back.take() == []


def test_what_an_actor_did_before_it_crashed_for_good_can_be_looked_into(world, make):
    assert ends(world, make, crashed(world)) == []


def test_everything_of_an_actor_goes_when_its_record_is_dropped(world, make, monkeypatch):
    monkeypatch.setattr(limits, "dead_actors_kept_max", 0)
    told = ends(world, make, crashed(world))
    assert told == [m.LogForget(make.id("actor"), True)]
    assert world.service.checkpoints.numbers == {} and not world.journal.tables["checkpoints"]
