"""What can go wrong in a simulated cluster: one function for each kind, in one table.

Each takes the world and a ``Fault`` (its ``target`` chooses among what can be hit, ``for_s`` says for how long,
``amount`` how much), lets it go wrong, and gives whether there was anything to hit. What has a duration ends itself.
The driver's host goes down with its tests, so what takes whole hosts away hits the others only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorlib.transport.sim.network import Weather

if TYPE_CHECKING:
    from actorlib.testing.fault_plans import Fault
    from actorlib.testing.simulated_node import SimNode
    from actorlib.testing.simulation import Simulation

NODES_MAX = 8
CHANCE_MAX = 0.5
FLAPS = 5
GCS_DOWN_S_MAX = 2.0
DRIVERS_PAUSE_S_MAX = 2.0
REBORN_WITHIN_S_MAX = 1.0


def _pick(among: list[Any], fault: Fault) -> Any:
    return among[fault.target % len(among)] if among else None


def _workers(world: Simulation) -> list[Any]:
    return [world.workers[process_id][1] for process_id in sorted(world.workers)]


def _others(world: Simulation) -> list[SimNode]:
    """Every host but the driver's."""
    return [node for node in world.nodes[1:] if node.is_alive]


def _pairs(among: list[SimNode]) -> list[tuple[SimNode, SimNode]]:
    return [(one, other) for one in among for other in among if one is not other]


# -- processes ---------------------------------------------------------------------------------------------------------
def _crash_worker(world: Simulation, fault: Fault) -> bool:
    worker = _pick(_workers(world), fault)
    if worker is not None:
        world.kill(worker.address.process_id)
    return worker is not None


def _crash_busy_worker(world: Simulation, fault: Fault) -> bool:
    worker = _pick([worker for worker in _workers(world) if worker.mailbox.running], fault)
    if worker is not None:
        world.kill(worker.address.process_id)
    return worker is not None


def _crash_actor(world: Simulation, fault: Fault) -> bool:
    worker = _pick([worker for worker in _workers(world) if worker.spec is not None], fault)
    if worker is not None:
        world.kill(worker.address.process_id)
    return worker is not None


def _kill_for_memory(world: Simulation, fault: Fault) -> bool:
    worker = _pick(_workers(world), fault)
    if worker is not None:
        world.workers[worker.address.process_id][0].oom_kills += 1
        world.kill(worker.address.process_id)
    return worker is not None


def _pause(world: Simulation, loop: Any, for_s: float) -> bool:
    loop.pause()
    world.after(for_s, loop.go_on)
    return True


def _pause_worker(world: Simulation, fault: Fault) -> bool:
    worker = _pick(_workers(world), fault)
    return worker is not None and _pause(world, worker.loop, fault.for_s)


def _pause_node(world: Simulation, fault: Fault) -> bool:
    """The scheduler of a host stops; its workers go on. The driver's own not for so long that it would be lost."""
    node = _pick(world.living_nodes(), fault)
    if node is not world.nodes[0]:
        return _pause(world, node.loop, fault.for_s)
    return not node.loop.is_paused and _pause(world, node.loop, min(fault.for_s, DRIVERS_PAUSE_S_MAX))


def _freeze_host(world: Simulation, fault: Fault) -> bool:
    node = _pick(_others(world), fault)
    if node is not None:
        world.after(fault.for_s, node.freeze())
    return node is not None


def _stale_host(world: Simulation, fault: Fault) -> bool:
    """A host stops, is taken for lost, and goes on as if nothing had been: it must be fenced."""
    node = _pick(_others(world), fault)
    if node is not None:
        world.after(fault.for_s, node.freeze())
        world.after(fault.for_s / 2, lambda: world.lose_sight_of(node, "it has not been heard of"))
    return node is not None


def _crash_node(world: Simulation, fault: Fault) -> bool:
    """A host loses power; later another one comes in its place."""
    node = _pick(_others(world), fault)
    if node is not None:
        world.crash_node(node)
        world.after(fault.for_s, world.add_node)
    return node is not None


def _drain_node(world: Simulation, fault: Fault) -> bool:
    """A host is told that it will be taken away, and leaves; another one comes in its place."""
    node = _pick([node for node in _others(world) if not node.service.draining.is_on], fault)
    if node is not None:
        node.service.drain(fault.for_s, "it will be taken away")
    return node is not None


def _reborn_host(world: Simulation, fault: Fault) -> bool:
    """A host loses power and is back as from an old snapshot, with an epoch that is over: it must be refused.

    Sometimes before anybody has noticed, sometimes after its loss is known.
    """
    node = _pick(_others(world), fault)
    if node is not None:
        world.bring_back_stale(node, min(fault.for_s, REBORN_WITHIN_S_MAX))
    return node is not None


def _add_node(world: Simulation, fault: Fault) -> bool:
    if len(world.living_nodes()) >= NODES_MAX:
        return False
    world.add_node()
    return True


def _slow_starts(world: Simulation, fault: Fault) -> bool:
    """New processes take their time."""
    node = _pick(world.living_nodes(), fault)
    node.slow_starts_s = fault.amount * 10
    world.after(fault.for_s, lambda: setattr(node, "slow_starts_s", 0.0))
    return True


def _failing_start(world: Simulation, fault: Fault) -> bool:
    """The next process that a host starts dies at once."""
    _pick(world.living_nodes(), fault).starts_to_fail = 1
    return True


def _crash_gcs(world: Simulation, fault: Fault) -> bool:
    """The GCS is killed, and comes back with what its journal has."""
    return world.crash_gcs(min(fault.for_s, GCS_DOWN_S_MAX))


def _journal_full(world: Simulation, fault: Fault) -> bool:
    """The disk under the GCS's tables takes nothing."""
    world.journal.is_full = True
    world.after(fault.for_s, lambda: setattr(world.journal, "is_full", False))
    return True


def _journal_power_cut(world: Simulation, fault: Fault) -> bool:
    """The GCS's machine loses power in the middle of a commit, which is then on its disk, or is not."""
    return world.cut_journals_power(fault.target % 2 == 0, min(fault.for_s, GCS_DOWN_S_MAX))


def _pause_gcs(world: Simulation, fault: Fault) -> bool:
    return world.gcs_process is not None and _pause(world, world.gcs_process.loop, fault.for_s)


# -- the network: one link ---------------------------------------------------------------------------------------------
def _cut(world: Simulation, one: Any, other: Any, fault: Fault, both_ways: bool = True) -> None:
    world.after(fault.for_s, world.network.partition(one.node_id, other.node_id, both_ways))


def _partition(world: Simulation, fault: Fault) -> bool:
    """A host and the driver's don't hear each other."""
    node = _pick(_others(world), fault)
    if node is not None:
        _cut(world, world.nodes[0], node, fault)
    return node is not None


def _one_way_partition(world: Simulation, fault: Fault) -> bool:
    pair = _pick(_pairs(world.living_nodes()), fault)
    if pair is not None:
        _cut(world, pair[0], pair[1], fault, both_ways=False)
    return pair is not None


def _partition_of_others(world: Simulation, fault: Fault) -> bool:
    """Two hosts that both hear the driver's don't hear each other."""
    pair = _pick(_pairs(_others(world)), fault)
    if pair is not None:
        _cut(world, pair[0], pair[1], fault)
    return pair is not None


def _isolation(world: Simulation, fault: Fault) -> bool:
    """A host hears nobody, and nobody hears it."""
    node = _pick(_others(world), fault)
    if node is None:
        return False
    for other in world.living_nodes():
        if other is not node:
            _cut(world, node, other, fault)
    return True


def _flapping_link(world: Simulation, fault: Fault) -> bool:
    """A link that comes and goes."""
    pair = _pick(_pairs(world.living_nodes()), fault)
    if pair is None:
        return False
    each_s = fault.for_s / (2 * FLAPS)
    for flap in range(FLAPS):
        world.after(
            2 * flap * each_s,
            lambda: world.after(each_s, world.network.partition(pair[0].node_id, pair[1].node_id)),
        )
    return True


def _slow_link(world: Simulation, fault: Fault) -> bool:
    pair = _pick(_pairs(world.living_nodes()), fault)
    if pair is None:
        return False
    trouble = world.network.trouble(pair[0].node_id, pair[1].node_id)
    trouble.extra_s = fault.amount
    world.after(fault.for_s, lambda: setattr(trouble, "extra_s", 0.0))
    return True


def _narrow_link(world: Simulation, fault: Fault) -> bool:
    """A link that carries few bytes a second."""
    pair = _pick(_pairs(world.living_nodes()), fault)
    if pair is None:
        return False
    trouble = world.network.trouble(pair[0].node_id, pair[1].node_id)
    trouble.bytes_per_s = 2_000.0 / (0.01 + fault.amount)
    world.after(fault.for_s, lambda: setattr(trouble, "bytes_per_s", 0.0))
    return True


def _clogged_link(world: Simulation, fault: Fault) -> bool:
    """What is sent waits, and then comes all at once."""
    pair = _pick(_pairs(world.living_nodes()), fault)
    if pair is not None:
        world.after(fault.for_s, world.network.clog(pair[0].node_id, pair[1].node_id))
    return pair is not None


# -- the network: all of it --------------------------------------------------------------------------------------------
def _weather(world: Simulation, fault: Fault, **changes: Any) -> bool:
    weather, calm = world.network.weather, Weather()
    for name, value in changes.items():
        setattr(weather, name, value)

    def over() -> None:
        for name in changes:
            setattr(weather, name, getattr(calm, name))

    world.after(fault.for_s, over)
    return True


def _loss(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, loss=min(CHANCE_MAX, fault.amount))


def _duplication(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, duplication=min(CHANCE_MAX, fault.amount))


def _reordering(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, reordering=min(CHANCE_MAX, fault.amount), held_back_s=fault.amount)


def _jitter(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, jitter_s=fault.amount)


def _heavy_tail(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, distribution="heavy tail", jitter_s=fault.amount / 50)


def _latency_spikes(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, distribution="spikes", jitter_s=fault.amount / 50)


def _far_hosts(world: Simulation, fault: Fault) -> bool:
    return _weather(world, fault, distribution="uniform", latency_s=fault.amount / 5, jitter_s=fault.amount / 50)


# -- disks and memory --------------------------------------------------------------------------------------------------
def _disk_stall(world: Simulation, fault: Fault) -> bool:
    """Each write and each sync on a host takes long."""
    disk = _pick(world.disks(), fault)
    disk.slow_s = fault.amount
    world.after(fault.for_s, lambda: setattr(disk, "slow_s", 0.0))
    return True


def _disk_full(world: Simulation, fault: Fault) -> bool:
    disk = _pick(world.disks(), fault)
    disk.is_full = True
    world.after(fault.for_s, lambda: setattr(disk, "is_full", False))
    return True


def _spills(node: SimNode) -> str:
    """What the paths of a host's spilled objects begin with; other files of it lie beside them."""
    return f"{node.directory}/spill-"


def _spills_lost(world: Simulation, fault: Fault) -> bool:
    """Spilled objects of a host are gone from its disk."""
    node = _pick([node for node in world.living_nodes() if node.disk.paths(_spills(node))], fault)
    return node is not None and node.disk.lose(_spills(node)) > 0


def _spills_torn(world: Simulation, fault: Fault) -> bool:
    """Spilled objects of a host are not what was written."""
    node = _pick([node for node in world.living_nodes() if node.disk.paths(_spills(node))], fault)
    if node is None:
        return False
    for path in node.disk.paths(_spills(node)):
        node.disk.tear(path)
    return True


def _memory_full(world: Simulation, fault: Fault) -> bool:
    """Others fill the memory that a host shares."""
    files = _pick(world.living_nodes(), fault).store.files
    files.is_full = True
    world.after(fault.for_s, lambda: setattr(files, "is_full", False))
    return True


# -- clocks ------------------------------------------------------------------------------------------------------------
def _jump(world: Simulation, fault: Fault, seconds: float) -> bool:
    jumps, node = world.world.wall_jumps, _pick(world.living_nodes(), fault)
    jumps[node.node_id] = jumps.get(node.node_id, 0.0) + seconds
    return True


def _clock_forward(world: Simulation, fault: Fault) -> bool:
    return _jump(world, fault, fault.amount * 7200)


def _clock_back(world: Simulation, fault: Fault) -> bool:
    return _jump(world, fault, -fault.amount * 7200)


KINDS: dict[str, Callable[[Simulation, Fault], bool]] = {
    "crash_worker": _crash_worker,
    "crash_busy_worker": _crash_busy_worker,
    "crash_actor": _crash_actor,
    "kill_for_memory": _kill_for_memory,
    "pause_worker": _pause_worker,
    "pause_node": _pause_node,
    "freeze_host": _freeze_host,
    "stale_host": _stale_host,
    "crash_node": _crash_node,
    "drain_node": _drain_node,
    "reborn_host": _reborn_host,
    "add_node": _add_node,
    "slow_starts": _slow_starts,
    "failing_start": _failing_start,
    "crash_gcs": _crash_gcs,
    "pause_gcs": _pause_gcs,
    "journal_full": _journal_full,
    "journal_power_cut": _journal_power_cut,
    "partition": _partition,
    "one_way_partition": _one_way_partition,
    "partition_of_others": _partition_of_others,
    "isolation": _isolation,
    "flapping_link": _flapping_link,
    "slow_link": _slow_link,
    "narrow_link": _narrow_link,
    "clogged_link": _clogged_link,
    "loss": _loss,
    "duplication": _duplication,
    "reordering": _reordering,
    "jitter": _jitter,
    "heavy_tail": _heavy_tail,
    "latency_spikes": _latency_spikes,
    "far_hosts": _far_hosts,
    "disk_stall": _disk_stall,
    "disk_full": _disk_full,
    "spills_lost": _spills_lost,
    "spills_torn": _spills_torn,
    "memory_full": _memory_full,
    "clock_forward": _clock_forward,
    "clock_back": _clock_back,
}
