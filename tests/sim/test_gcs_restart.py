"""The GCS is killed and comes back, in simulated clusters: nobody notices but by a moment's delay."""

from __future__ import annotations

import time

import pytest

import actorlib
from actorlib.testing import simulate
from actorlib.transport import limits, messages
from actorlib.util.placement_group import placement_group, placement_group_table, remove_placement_group
from actorlib.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@actorlib.remote(max_restarts=-1, max_task_retries=-1)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

    def node(self):
        return actorlib.get_runtime_context().get_node_id()


@actorlib.remote
def double(x):
    return 2 * x


def on(node):
    """To be placed there if it can be."""
    return NodeAffinitySchedulingStrategy(node.node_id.hex(), soft=True)


@pytest.mark.parametrize("seed", range(5))
def test_everything_that_was_there_is_there_afterwards(seed):
    def work(world):
        kept = Counter.options(name="kept", lifetime="detached").remote()
        group = placement_group([{"CPU": 1}, {"CPU": 1}])
        assert group.wait(10) and actorlib.get(kept.add.remote(), timeout=10) == 1
        for count in (2, 4, 6):
            world.crash_gcs(0.03)
            refs = [double.remote(i) for i in range(10)]
            assert actorlib.get(kept.add.remote(), timeout=10) == count
            assert actorlib.get(actorlib.get_actor("kept").add.remote(), timeout=10) == count + 1
            assert actorlib.get(refs, timeout=30) == [2 * i for i in range(10)]
            assert actorlib.get(Counter.options(num_cpus=0).remote().add.remote(), timeout=30) == 1
        assert group.wait(10) and placement_group_table(group)["state"] == "CREATED"
        remove_placement_group(group)
        actorlib.kill(kept)

    with simulate(seed=seed, nodes=3, own_gcs=True) as world:
        work(world)


def test_calls_that_do_not_need_the_gcs_do_not_wait_for_it():
    def work(world):
        counter = Counter.remote()
        actorlib.get(counter.add.remote())
        world.crash_gcs(5.0)
        began = world.world.time
        assert actorlib.get([counter.add.remote() for _ in range(10)])[-1] == 11
        assert actorlib.get(double.remote(3)) == 6
        assert world.world.time - began < 1.0 and world.gcs is None
        assert len(actorlib.nodes()) == 2  # waits, and goes through
        assert world.world.time - began > 4.0

    with simulate(seed=1, nodes=2, own_gcs=True) as world:
        work(world)


@pytest.mark.parametrize("seed", range(3))
def test_a_detached_actor_whose_node_died_meanwhile_is_restarted(seed):
    def work(world):
        time.sleep(0.5)  # until all nodes know of each other
        # Without restarts: what happens while the GCS is away does not count.
        actor = Counter.options(
            name="kept", lifetime="detached", max_restarts=0, scheduling_strategy=on(world.nodes[1])
        ).remote()
        assert actorlib.get(actor.node.remote()) == world.nodes[1].node_id.hex()
        world.crash_gcs(2.0)
        world.after(0.5, lambda: world.crash_node(world.nodes[1]))
        time.sleep(1.0)
        began = world.world.time
        where = world.nodes[1].node_id.hex()
        assert actorlib.get(actor.node.remote(), timeout=60) != where
        assert world.world.time - began < limits.node_lost_after_s + 4
        actorlib.kill(actor)

    with simulate(seed=seed, nodes=3, own_gcs=True) as world:
        work(world)


def test_an_actor_that_ended_meanwhile_is_restarted_or_said_to_be_dead():
    def work(world):
        back, gone = Counter.remote(), Counter.options(max_restarts=0).remote()
        assert actorlib.get([back.add.remote(), gone.add.remote()]) == [1, 1]
        world.crash_gcs(1.0)
        assert world.crash_actor(back) and world.crash_actor(gone)
        assert actorlib.get(back.add.remote(), timeout=30) == 1
        with pytest.raises(actorlib.exceptions.ActorDiedError):
            actorlib.get(gone.add.remote(), timeout=30)

    with simulate(seed=4, nodes=2, own_gcs=True) as world:
        work(world)


def test_a_node_that_was_declared_lost_is_told_to_end_and_its_actors_live_elsewhere_once():
    def work(world):
        time.sleep(0.5)
        node = world.nodes[1]
        actor = Counter.options(scheduling_strategy=on(node)).remote()
        assert actorlib.get(actor.node.remote()) == node.node_id.hex()
        others = [other for other in world.nodes if other is not node]
        for other in others:
            world.network.partition(other.node_id, node.node_id)
        began = world.world.time
        assert actorlib.get(actor.add.remote(), timeout=60) == 1  # of a new instance: the old one is out of reach
        assert world.world.time - began < limits.node_lost_after_s + 2
        world.network.heal()
        time.sleep(5.0)
        assert not node.is_alive
        assert sum(worker.spec is not None for _, worker in world.workers.values()) == 1

    with simulate(seed=6, nodes=3, own_gcs=True) as world:
        work(world)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gap_s", [0.5, 2.5, 5.0])  # 2.5: what the life before said is sent again in between
def test_every_life_of_the_gcs_is_heard_of_at_once(seed, gap_s):
    def work(world):
        for _ in range(4):
            world.crash_gcs(0.05)
            began = world.world.time
            assert len(actorlib.nodes()) == 3
            assert world.world.time - began < 0.5, "a node heard of it only by its silence"
            time.sleep(gap_s)

    with simulate(seed=seed, nodes=3, own_gcs=True) as world:
        work(world)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_loss_that_was_written_and_told_to_nobody_is_told_by_the_next_life(is_kept):
    """The power goes in the commit of a node's loss: the nodes have heard nothing, the tables know it, or don't."""

    def work(world):
        refs = [slow.options(max_retries=-1).remote(i) for i in range(3)]
        time.sleep(1.0)
        world.cut_journals_power(is_kept, 0.5)
        world.crash_node(world.nodes[2])
        assert actorlib.get(refs, timeout=60) == [0, 1, 2]

    with simulate(seed=3, nodes=3, num_cpus=1, own_gcs=True) as world:
        work(world)


@actorlib.remote
def slow(value):
    time.sleep(3.0)
    return value


def test_a_full_disk_of_the_gcs_refuses_what_is_new_and_loses_nothing_of_what_was_there():
    def work(world):
        counter = Counter.remote()
        assert actorlib.get(counter.add.remote()) == 1
        world.journal.is_full = True
        for _ in range(3):
            with pytest.raises(actorlib.exceptions.OutOfDiskError, match="make room"):
                Counter.options(name="refused", lifetime="detached").remote()
        with pytest.raises(ValueError, match="no actor named"):
            actorlib.get_actor("refused")
        assert actorlib.get([counter.add.remote(), double.remote(4)]) == [2, 8]  # what needs no write goes on
        world.crash_actor(counter)
        ref = counter.add.remote()
        assert actorlib.wait([ref], timeout=5.0)[0] == []  # its next life has to be written down first
        world.journal.is_full = False
        assert actorlib.get(ref, timeout=30) == 1
        later = Counter.options(name="refused", lifetime="detached").remote()
        assert actorlib.get(later.add.remote()) == 1
        actorlib.kill(later)

    for own_gcs in (False, True):
        with simulate(seed=2, nodes=2, own_gcs=own_gcs) as world:
            work(world)


def test_a_host_that_is_back_under_an_epoch_that_is_over_is_refused_and_its_work_goes_elsewhere():
    def work(world, after_s):
        refs = [slow.options(max_retries=-1).remote(i) for i in range(3)]
        time.sleep(1.0)
        world.bring_back_stale(world.nodes[2], after_s)
        assert actorlib.get(refs, timeout=60) == [0, 1, 2]

    for after_s in (0.1, 1.0):  # before its loss is known, and after
        with simulate(seed=1, nodes=3, num_cpus=1) as world:
            work(world, after_s)
            stale = [node for node in world.nodes if node.number == 2]
            assert len(stale) == 2
            for _ in range(20):  # its session is as old as its epoch: it may have to dial anew before it hears
                if any(node.is_alive for node in stale):
                    time.sleep(1.0)
            assert not any(node.is_alive for node in stale)
            assert world.gcs.nodes.views[stale[0].node_id].alive is False
            assert len(world.living_nodes()) == 3


@actorlib.remote(num_cpus=1)
class Wide:
    def answer(self):
        return 1


@pytest.mark.parametrize("again_after_s", [None, 0.002, 0.05])
@pytest.mark.parametrize("down_s", [0.001, 0.03])
def test_an_actor_on_its_way_is_there_soon_whenever_the_gcs_dies(down_s, again_after_s):
    """At each moment of a creation: registered, ordered, passed on from a node that is full, granted, born."""

    def work(world, at_s):
        first = Wide.remote()  # fills the node that is asked first
        assert actorlib.get(first.answer.remote()) == 1
        began = world.world.time
        world.after(at_s, lambda: world.crash_gcs(down_s))
        if again_after_s is not None:
            world.after(at_s + down_s + again_after_s, lambda: world.crash_gcs(down_s))
        actors = [Wide.remote(), Wide.remote(), Counter.options(num_cpus=0).remote()]
        refs = [actors[0].answer.remote(), actors[1].answer.remote(), actors[2].add.remote()]
        assert actorlib.get(refs, timeout=30) == [1, 1, 1]
        # What a session sends second may overtake what it sends first here, and is sent again then.
        assert world.world.time - began < at_s + 2 * down_s + limits.session_resend_after_s + 1.0

    for step in range(30):
        with simulate(seed=step, nodes=3, num_cpus=1, own_gcs=True) as world:
            time.sleep(0.5)
            work(world, step * 0.0005)


def test_who_comes_after_the_news_of_another_life_is_told_as_well():
    """A process may have talked to the life before, and greet its node only when the others have been told."""
    with simulate(seed=3, nodes=2, own_gcs=True) as world:
        for life in (2, 3):
            world.crash_gcs(0.03)
            time.sleep(1.0)
            counter = Counter.remote()
            assert actorlib.get(counter.add.remote()) == 1
            del counter
            time.sleep(1.0)
            assert {worker.gcs_client.boot for worker in world.living_workers()} == {life}


def test_a_node_that_missed_the_first_life_whole_tells_its_processes_of_the_second():
    """It had registered, and had no heartbeat answered before it was cut off for as long as the next life began."""
    with simulate(seed=5, nodes=2, own_gcs=True) as world:
        time.sleep(1.0)
        node = world.add_node()
        node.service.workers.prestart(1)
        while not world.gcs.nodes.is_alive(node.node_id):
            time.sleep(0.001)
        assert node.service.gcs_boot == 0
        world.network.partition(world.nodes[0].node_id, node.node_id)
        world.crash_gcs(0.03)
        time.sleep(limits.gcs_silence_s + 1.0)
        world.network.heal()
        time.sleep(limits.gcs_silence_s + 2.0)
        assert node.service.gcs_boot == 2
        workers = [worker for home, worker in world.workers.values() if home is node]
        assert workers and all(worker.gcs_client.boot == 2 for worker in workers)


def test_who_was_cut_off_from_a_gcs_that_lives_in_a_node_has_missed_no_life_of_it():
    """Its processes would drop their links to that node, with what is on its way."""
    with simulate(seed=5, nodes=2) as world:
        time.sleep(1.0)
        node = world.nodes[1]
        node.service.workers.prestart(1)
        time.sleep(1.0)
        node.service._was_cut_off = True
        node.service._on_heartbeat_seen(node.loop.link(world.nodes[0].loop.address), messages.HeartbeatSeen(3))
        time.sleep(1.0)
        assert node.service.gcs_boot == 3
        workers = [worker for home, worker in world.workers.values() if home is node]
        assert workers and all(worker.gcs_client.boot == 0 for worker in workers)
