"""The owner table: exact effects, and several tables over a fake network with everything out of order."""

from __future__ import annotations

import collections

from hypothesis import given, settings
from hypothesis import strategies as st

from actorlib.store.owner import Entry, OwnerTable
from actorlib.transport import messages
from actorlib.transport.ids import object_id
from actorlib.transport.link import Address


def address(name):
    return Address(name.encode().ljust(8, b"."), b"node....", "")


class Port:
    """Collects what a table asks for."""

    def __init__(self):
        self.sent = []
        self.watched = []
        self.freed = []
        self.recovered = []
        self.registrations = []
        self.orphans = []

    def send_to(self, to, message):
        self.sent.append((to, message))

    def watch(self, who):
        self.watched.append(who)

    def free_stored(self, oid, value, recipe):
        self.freed.append((oid, value[1]) if value[5] == "far" else oid)

    def left(self, oid):
        self.sent.append(("left", oid))

    def unpublish(self, oid):
        self.sent.append(("unpublish", oid))

    def claim(self, oid, value):
        self.sent.append(("claim", oid))

    def orphaned(self, oid, dead, text):
        self.orphans.append((oid, dead, text))

    def free_copies(self, oid, nodes):
        self.sent += [(node, messages.CopiesFreed((oid,))) for node in nodes]

    def promote(self, oid, node):
        self.sent.append((node, messages.CopyPromoted(oid)))

    def demote(self, oid, node):
        self.sent.append((node, messages.CopyDemoted(oid)))

    def keep(self, oid, value, leaving):
        self.sent.append(("keep", oid, value, leaving))

    def error_value(self, kind, text):
        return (messages.VALUE_ERROR, kind.encode(), text)

    def recover(self, oid, recipe, reason):
        self.recovered.append((oid, recipe))

    def ask_registration(self, owner, ids, who, then):
        self.registrations.append((owner, ids, who, then))


A, B, C = address("a"), address("b"), address("c")


def own(table, n=1, value=b"v"):
    oid = object_id(table.address.process_id + n.to_bytes(8, "big"), 0)
    table.entries[oid] = Entry()
    table.entries[oid].value = value
    return oid


def stored(n=1):
    return (messages.VALUE_STORED, b"node....", f"slab-{n}", 0, 10, "host")


def test_the_last_reference_frees():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, value=stored())
    table.hold(oid)
    table.release(oid)
    assert oid in table.entries
    table.release(oid)
    assert oid not in table.entries and port.freed == [oid]


class Task:
    """A recipe."""

    def __init__(self, inputs=()):
        self._inputs = inputs
        self.recipe_kept = 0

    def inputs(self):
        return self._inputs

    def is_finished(self):
        return True


def far(n=1, node=b"far....."):
    return (messages.VALUE_STORED, node, f"far-{n}", 0, 10, "far")


def test_copies_are_freed_with_the_object_and_taken_when_it_is_lost():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, value=far(node=b"lost...."))
    near, other = Address(b"near....", b"near....", ""), Address(b"other...", b"other...", "")
    assert table.copied(oid, near, far(2, near.node_id)) and table.copied(oid, other, far(3, other.node_id))
    table.moved(oid, far(2, near.node_id))
    assert table.entries[oid].value == far(node=b"lost....") and table.entries[oid].rare.near == far(2, near.node_id)
    table.lost(oid, far(9), "not where it never was")
    assert port.sent == []
    table.lost(oid, far(node=b"lost...."), "its node is gone")
    assert port.sent == [(near, messages.CopyPromoted(oid))] and not port.recovered
    assert table.entries[oid].value == far(2, near.node_id)
    assert port.freed == [(oid, b"lost....")]  # whoever did not find it there may have been cut off from it
    table.release(oid)
    assert port.sent[1:] == [(other, messages.CopiesFreed((oid,)))] and port.freed[1:] == [(oid, near.node_id)]
    assert not table.copied(oid, other, far(3))


LEAVING, STAYING = Address(b"leaving.", b"leaving.", ""), Address(b"staying.", b"staying.", "")


def test_what_lies_on_a_node_that_drains_is_kept_by_one_that_has_a_copy():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, value=far(1, LEAVING.node_id))
    table.copied(oid, STAYING, far(2, STAYING.node_id))
    table.leaves(oid, LEAVING)
    assert port.sent == [(STAYING, messages.CopyPromoted(oid)), (LEAVING, messages.CopyDemoted(oid))]
    assert table.entries[oid].value == far(2, STAYING.node_id)
    table.leaves(oid, LEAVING)  # said again before it was heard
    assert len(port.sent) == 2
    table.release(oid)
    assert port.sent[2:] == [(LEAVING, messages.CopiesFreed((oid,)))] and port.freed == [(oid, STAYING.node_id)]


def test_what_only_a_node_that_drains_has_is_copied_first():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, value=far(1, LEAVING.node_id))
    table.leaves(oid, LEAVING)
    assert port.sent == [("keep", oid, far(1, LEAVING.node_id), LEAVING)]
    table.copied(oid, STAYING, far(2, STAYING.node_id))
    table.leaves(oid, LEAVING)
    assert table.entries[oid].value == far(2, STAYING.node_id)
    table.leaves(oid, STAYING)  # which drains as well: what the first one has is no help
    assert port.sent[-1] == ("keep", oid, far(2, STAYING.node_id), STAYING)


def test_a_node_that_drains_concerns_neither_borrowed_values_nor_those_elsewhere():
    port = Port()
    table = OwnerTable(A, port)
    elsewhere = own(table, value=far(1, STAYING.node_id))
    borrowed = object_id(b"b" * 16, 1)
    table.adopt(borrowed, B)
    table.resolve(borrowed, far(1, LEAVING.node_id))
    port.sent.clear()
    for oid in (elsewhere, borrowed, object_id(b"?" * 16, 1)):
        table.leaves(oid, LEAVING)
    assert port.sent == []


def test_when_the_last_copy_is_lost_it_is_made_again():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, value=far(1))
    table.copied(oid, B, far(2, B.node_id))
    table.lost(oid, far(1), "gone")
    table.lost(oid, far(2, B.node_id), "gone too")
    assert port.recovered == [(oid, None)] and table.entries[oid].value is None
    assert not table.copied(oid, C, far(3, C.node_id)), "a copy of what is being made again may have other bytes"


def test_a_chain_of_recipes_is_kept_to_its_start_and_let_go_at_its_end():
    port = Port()
    table = OwnerTable(A, port)
    oids, before = [], ()
    for n in range(4):  # each made from the one before, whose reference is dropped; the second is a small value
        oid = object_id(A.process_id + (10 + n).to_bytes(8, "big"), 0)
        table.entries[oid] = Entry(Task(before))
        table.resolve(oid, b"small" if n == 1 else stored(n))
        for earlier in before:
            table.release(earlier)
        oids.append(oid)
        before = (oid,)
    assert set(table.entries) == set(oids[1:]), "what a small value was made from is not needed"
    assert table.entries[oids[1]].value == b"small" and table.entries[oids[2]].value is None
    table.check()
    table.release(oids[3])
    assert not table.entries


def test_a_borrower_keeps_the_object_and_may_release_before_it_is_registered():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table)
    table.hold(oid)  # a call in flight
    table.unregister(oid, B.process_id)  # of an earlier registration, overtaking this one
    table.register(oid, B)
    table.register(oid, B)
    table.release(oid)
    table.release(oid)
    assert oid in table.entries, "one registration is left"
    table.unregister(oid, B.process_id)
    assert oid not in table.entries


def test_a_dead_borrower_is_forgotten():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table)
    table.register(oid, B)
    assert port.watched == [B]
    table.release(oid)
    table.process_died(B.process_id, "crashed")
    assert not table.entries


def test_a_borrowed_value_is_asked_for_once_and_wakes_all_who_wait():
    port = Port()
    table = OwnerTable(B, port)
    oid = object_id(A.process_id + bytes(8), 0)
    table.adopt(oid, A)
    seen = []
    assert not table.when_ready(oid, seen.append)
    assert not table.when_ready(oid, seen.append)
    assert port.sent == [(A, messages.ObjectWanted((oid,)))]
    table.resolve(oid, b"value")
    assert seen == [oid, oid] and table.entries[oid].value == b"value"


def test_the_owner_answers_when_the_value_comes():
    port = Port()
    table = OwnerTable(A, port)
    oid = object_id(A.process_id + bytes(8), 0)
    table.entries[oid] = Entry()
    table.answer_wanted(oid, B)
    assert not port.sent
    table.resolve(oid, b"value")
    assert port.sent == [(B, messages.ObjectReady(oid, b"value"))]


def test_a_borrower_tells_the_owner_once_for_each_registration():
    port = Port()
    table = OwnerTable(B, port)
    oid = object_id(A.process_id + bytes(8), 0)
    table.adopt(oid, A)
    told, others = table.retained([oid], A.process_id)
    assert told == [oid] and not others
    assert table.retained([oid], A.process_id) == ([], {})
    table.release(oid)
    assert port.sent == [(A, messages.BorrowReleased((oid,)))]


def test_references_of_a_third_owner_are_registered_with_it():
    port = Port()
    table = OwnerTable(B, port)
    oid = object_id(C.process_id + bytes(8), 0)
    table.adopt(oid, C)
    assert table.retained([oid], A.process_id) == ([], {C: [oid]})


def test_the_owner_dies():
    port = Port()
    table = OwnerTable(B, port)
    oid = object_id(A.process_id + bytes(8), 0)
    table.adopt(oid, A)
    table.when_ready(oid, lambda _: None)
    table.process_died(A.process_id, "killed by SIGKILL")
    ((orphan, dead, text),) = port.orphans
    assert (orphan, dead) == (oid, A.process_id) and "SIGKILL" in text


def test_lineage_is_told_of_when_a_reference_leaves_and_when_it_is_not_needed_any_more():
    port = Port()
    table = OwnerTable(A, port)
    oid = object_id(A.process_id + bytes(8), 0)
    table.entries[oid] = Entry(Task())
    table.register(oid, B)
    table.register(oid, C)
    table.resolve(oid, b"value")
    table.unregister(oid, B.process_id)
    table.unregister(oid, C.process_id)
    table.release(oid)
    assert port.sent == [("left", oid), ("left", oid), ("unpublish", oid)]
    own_put = own(table, 9)
    table.register(own_put, B)
    assert port.sent[3:] == [("left", own_put)]  # its value is small enough to be kept
    in_memory = own(table, 10)
    table.entries[in_memory].value = stored(1)
    table.register(in_memory, B)
    assert port.sent[4:] == [("left", in_memory)]  # nothing can make it again, which is told
    pending = object_id(A.process_id + (11).to_bytes(8, "big"), 0)
    table.entries[pending] = Entry(None)
    table.register(pending, B)
    assert len(port.sent) == 5


def test_a_borrower_takes_an_object_over_or_borrows_it_from_who_has():
    port = Port()
    table = OwnerTable(B, port)
    first, second = (object_id(A.process_id + n.to_bytes(8, "big"), 0) for n in (1, 2))
    for oid in (first, second):
        table.adopt(oid, A)
        table.when_ready(oid, lambda _: None)
    table.process_died(A.process_id, "gone")
    port.sent.clear()
    table.take_over(first, Task())
    table.check()
    table.register(first, C)
    table.resolve(first, b"again")
    table.release(first)
    table.unregister(first, C.process_id)
    assert first not in table.entries and ("unpublish", first) in port.sent
    table.redirect(second, C)
    table.check()
    assert (C, messages.ObjectWanted((second,))) in port.sent
    ((owner, ids, who, then),) = port.registrations
    assert (owner, ids, who) == (C, (second,), B)
    then()
    table.release(second)
    assert port.sent[-1] == (C, messages.BorrowReleased((second,)))


def test_a_value_keeps_what_it_contains():
    port = Port()
    table = OwnerTable(A, port)
    inner = own(table, 1)
    outer = own(table, 2, None)
    table.add_put(outer, b"box", ((inner, A),))
    table.release(inner)
    assert inner in table.entries
    table.release(outer)
    assert not table.entries


class Made:
    """A task as lineage sees it."""

    def __init__(self, *inputs):
        self._inputs = inputs
        self.recipe_kept = 0

    def inputs(self):
        return self._inputs

    def is_finished(self):
        return True


def test_the_recipe_of_an_argument_outlives_its_value():
    port = Port()
    table = OwnerTable(A, port)
    base = own(table, 1, None)
    table.entries[base].task = Made()
    table.resolve(base, stored(1))
    result = own(table, 2, None)
    table.entries[result].task = Made(base)
    table.resolve(result, stored(2))
    table.release(base)
    assert base in table.entries and table.entries[base].value is None and port.freed == [base]
    assert not table.when_ready(base, lambda _: None)
    assert [oid for oid, _ in port.recovered] == [base]
    table.entries[base].waiters = None
    table.release(result)
    assert not table.entries and port.freed == [base, result]


def test_a_lost_value_is_recovered_and_only_once():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, 1, None)
    table.entries[oid].task = Made()
    table.resolve(oid, stored(1))
    table.lost(oid, stored(1), "gone")
    table.lost(oid, stored(1), "gone")
    assert len(port.recovered) == 1 and table.entries[oid].value is None
    table.resolve(oid, stored(2))
    table.lost(oid, stored(1), "news of the old place")
    assert table.entries[oid].value == stored(2)


def test_what_can_not_be_made_again_is_freed_where_it_was_as_well():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table, 1, stored(1))
    port.recover = lambda oid, recipe, reason: table.resolve(oid, port.error_value("ObjectLostError", reason))
    table.lost(oid, stored(1), "somebody looked for it too soon")
    assert table.entries[oid].value[0] == messages.VALUE_ERROR and port.freed == [oid]


class World:
    """Tables joined by links; messages of one link stay in order, links overtake each other."""

    def __init__(self, rng, names):
        self.rng = rng
        self.links: dict[tuple[Address, Address, str], list] = {}
        self.references: collections.Counter[tuple[Address, bytes]] = collections.Counter()  # Python's, by process
        self.tables = {}
        for name in names:
            who = address(name)
            port = Port()
            self.tables[who] = OwnerTable(who, port)
            port.send_to = lambda to, message, who=who: self.send(who, to, "own", message)
            port.ask_registration = lambda owner, ids, borrower, then, who=who: self.send(
                who, owner, "own", ("register", ids, borrower, then)
            )

    def send(self, a, b, kind, message):
        self.links.setdefault((a, b, kind), []).append(message)

    def step(self):
        busy = [key for key, queue in self.links.items() if queue]
        if not busy:
            return False
        key = self.rng.choice(busy)
        a, b, _ = key
        self.handle(a, b, self.links[key].pop(0))
        for table in self.tables.values():
            table.check()
        return True

    def handle(self, a, b, message):
        table = self.tables[b]
        if type(message) is messages.BorrowReleased:
            for oid in message.object_ids:
                table.unregister(oid, a.process_id)
        elif message[0] == "register":
            for oid in message[1]:
                assert table.register(oid, message[2]), "registered with an owner that has freed it"
            self.send(b, a, "answer", ("call", message[3]))
        elif message[0] == "call":
            message[1]()
        elif message[0] == "run":
            self.run(a, b, *message[1:])
        elif message[0] == "done":
            held, retained = message[1:]
            for oid in retained:
                assert table.register(oid, a)
            table.release(held)

    def pass_on(self, a, b, oid, owner, keep):
        """A call from a to b with a reference as its argument; b may keep it."""
        self.tables[a].hold(oid)
        self.send(a, b, "call", ("run", oid, owner, keep))

    def run(self, a, b, oid, owner, keep):
        table = self.tables[b]
        table.adopt(oid, owner)
        if keep:
            self.references[b, oid] += 1
        else:
            table.release(oid)
        told, others = table.retained([oid], a.process_id)

        def answer():
            self.send(b, a, "reply", ("done", oid, told))

        if others:
            ((third, ids),) = others.items()
            table._port.ask_registration(third, tuple(ids), b, answer)
        else:
            answer()


@settings(max_examples=150, deadline=None, database=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_however_messages_interleave_everything_is_freed_and_nothing_too_early(rng, steps):
    world = World(rng, "abcd")
    everyone = list(world.tables)
    for who, table in world.tables.items():
        world.references[who, own(table)] = 1
    for _ in range(steps):
        giver, taker = rng.sample(everyone, 2)
        held = [oid for (who, oid), count in world.references.items() if who == giver and count]
        if held:
            oid = rng.choice(held)
            owner = next(who for who in everyone if who.process_id == oid[:8])
            world.pass_on(giver, taker, oid, owner, rng.random() < 0.6)
            if rng.random() < 0.5:
                world.references[giver, oid] -= 1
                world.tables[giver].release(oid)
        for _ in range(rng.randrange(4)):
            world.step()
    while world.step():
        continue
    for (who, oid), count in world.references.items():
        owner = next(other for other in everyone if other.process_id == oid[:8])
        assert not count or oid in world.tables[owner].entries, "freed while somebody refers to it"
        assert not count or world.tables[who].entries[oid].count == count
        for _ in range(count):
            world.tables[who].release(oid)
    while world.step():
        continue
    assert all(not table.entries for table in world.tables.values())


def test_a_value_with_our_own_reference_that_never_comes_does_not_keep_the_object():
    port = Port()
    table = OwnerTable(A, port)
    oid = own(table)
    assert table.register(oid, A, B)  # B is about to send us a value with it
    table.release(oid)
    assert oid in table.entries and port.watched == [B]
    table.process_died(B.process_id, "killed")
    assert not table.entries


def test_a_value_with_our_own_reference_that_comes_ends_the_registration():
    port = Port()
    table = OwnerTable(A, port)
    inner, outer = own(table, 1), own(table, 2, None)
    assert table.register(inner, A, B)
    table.release(inner)
    table.resolve(outer, (messages.VALUE_REFS, b"value", ((inner, A),)))
    table.process_died(B.process_id, "killed")
    assert inner in table.entries
    table.release(outer)
    assert not table.entries
