"""Who owns which object, who else refers to it, and when it may go.

Theory of operation
-------------------
The process that makes a reference owns the object. Every process keeps one ``OwnerTable`` with an entry for each
object that it owns *or* borrows. An entry counts what keeps it here: Python references, calls in flight that take it
as an argument, objects whose value contains it. All of that is one number, ``count``.

An owned object is freed when its count is zero and no borrower is registered. A borrowed entry whose count reaches
zero tells the owner, once for each time that this process was registered. Registrations are *counted* on both sides,
since a release and a later registration may travel on different links and arrive in either order: a number that is
briefly negative comes right, a set would forget.

Whoever hands a reference on is responsible for the receiver being registered before its own hold ends:

* arguments: the caller holds them until the result is there; the result names those that the worker kept
  (``retained``) if the caller owns them, else the worker has registered itself with the owner before it answered;
* values that contain references: whoever sends such a value registers the receiver first (``register_receiver``).

Lineage: an entry made by a task keeps that task, and while a value that can be lost (one in shared memory) lives, its
task keeps the entries of its arguments *as recipes* (``recipes``): their values may go, their tasks stay, so that the
chain can be run again. A ``put`` has no recipe.

Copies: the value of an object in shared memory names the node that keeps it. Nodes that have copied it tell the owner
(``copied``), who frees them with it and falls back on one of them when the first is lost; only when all are gone is it
made again. ``near`` is where this process can read it: its own node's copy.

Who may be wrong: borrowers may die (``process_died`` drops their registrations), owners may die (their borrowed
entries resolve to ``OwnerDiedError``), messages about unknown objects are answered with an error value.

Everything here runs on the thread that drives the loop, except ``entries.get`` and the insertion of a fresh entry,
which are single dict operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actorlib.store.entry import Entry, Rare, Recipe, References, Waiter, is_error, is_stored, unwrap
from actorlib.transport import messages
from actorlib.transport.ids import NodeId, ObjectId, ProcessId
from actorlib.transport.link import Address
from actorlib.transport.messages import VALUE_REFS, Value

__all__ = ["Entry", "OwnerTable", "Rare", "Recipe", "References", "Waiter", "is_error", "is_stored", "unwrap"]


class Port(Protocol):
    """What the table asks of its process."""

    def send_to(self, address: Address, message: tuple[Any, ...]) -> None: ...

    def watch(self, address: Address) -> None:
        """Report the death of that process through ``process_died``."""

    def free_stored(self, object_id: ObjectId, value: Value, recipe: Recipe | None) -> None:
        """The object lies where ``value`` says and nobody can reach it. ``recipe`` may have left other copies."""

    def free_copies(self, object_id: ObjectId, nodes: Iterable[Address]) -> None:
        """Those nodes may have copies that nobody needs any more."""

    def promote(self, object_id: ObjectId, node: Address) -> None:
        """That node's copy is the one to keep from now on."""

    def demote(self, object_id: ObjectId, node: Address) -> None:
        """What that node has is a copy from now on."""

    def keep(self, object_id: ObjectId, value: Value, leaving: Address) -> None:
        """Have our node copy the object from ``leaving``, which goes; say so with ``copied`` and ``leaves``."""

    def error_value(self, kind: str, text: str) -> Value: ...

    def left(self, object_id: ObjectId) -> None:
        """Another process refers to an object that a task makes (or its value has come): its lineage must be kept."""

    def unpublish(self, object_id: ObjectId) -> None:
        """Its lineage is not needed any more."""

    def claim(self, object_id: ObjectId, value: Value) -> None:
        """An object that we have taken over lies there now: it must end with us."""

    def orphaned(self, object_id: ObjectId, dead: ProcessId, text: str) -> None:
        """A borrowed object is needed and its owner is dead: take it over, or resolve it to an error."""

    def recover(self, object_id: ObjectId, recipe: Recipe | None, reason: str) -> None:
        """Make the object again, or resolve it to an error that says why that can't be done."""

    def ask_registration(
        self, owner: Address, ids: tuple[ObjectId, ...], who: Address, then: Callable[[], None]
    ) -> None:
        """Send BorrowAdded to ``owner`` and call ``then`` when it has answered or died."""


class OwnerTable:
    """Entries of all objects that this process owns or borrows. See the module's docstring."""

    def __init__(self, address: Address, port: Port) -> None:
        self.address = address
        self.entries: dict[ObjectId, Entry] = {}
        self._port = port
        self._borrowed_from_us: dict[ProcessId, dict[ObjectId, None]] = {}
        self._borrowed_from: dict[ProcessId, dict[ObjectId, None]] = {}
        self._leaving: dict[NodeId, None] = {}  # nodes that drain, or have drained
        self._registered_us: dict[ProcessId, dict[ObjectId, int]] = {}  # by whom, for values on their way to us

    # -- references of this process ------------------------------------------------------------------------------------
    def adopt(self, object_id: ObjectId, owner: Address) -> Entry:
        """One more local reference to an object that may be new here."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = self._new_borrowed(object_id, owner)
        entry.count += 1
        return entry

    def hold(self, object_id: ObjectId) -> None:
        self.entries[object_id].count += 1

    def release(self, object_id: ObjectId) -> None:
        """One local reference or hold less."""
        entry = self.entries.get(object_id)
        if entry is None:
            return
        entry.count -= 1
        if entry.count <= 0:
            self._maybe_free(object_id, entry)

    def _new_borrowed(self, object_id: ObjectId, owner: Address) -> Entry:
        entry = Entry(None, 0)
        self.entries[object_id] = entry
        if owner.process_id == self.address.process_id:
            # Ours, but already freed: the reference outlived every hold (it was kept outside of our counting).
            entry.value = self._port.error_value(
                "ReferenceCountingAssertionError",
                f"object {object_id.hex()} was freed by its owner before this reference to it arrived; "
                "references must travel as arguments, results or inside put values, not as raw bytes",
            )
            return entry
        entry.needs_rare().owner = owner
        self._borrowed_from.setdefault(owner.process_id, {})[object_id] = None
        return entry

    def _maybe_free(self, object_id: ObjectId, entry: Entry) -> None:
        rare = entry.rare
        if rare is None:
            self._drop_value(object_id, entry)
            del self.entries[object_id]
            return
        if rare.owner is not None:
            self._return_borrowed(object_id, entry, rare)
            return
        if rare.borrowers and any(n > 0 for n in rare.borrowers.values()):
            return
        if rare.recipes > 0:
            self._keep_only_recipe(object_id, entry, rare)
            return
        del self.entries[object_id]
        self._drop_value(object_id, entry)
        if rare.published:
            self._port.unpublish(object_id)
        if rare.keeps_recipes:
            self._release_recipes(entry.task)
        if rare.on_free is not None:
            rare.on_free()

    def _keep_only_recipe(self, object_id: ObjectId, entry: Entry, rare: Rare) -> None:
        """Nobody needs the value, but what was made from it may be lost: it stays if it is small, else what it was
        made from stays in its place, all the way down the chain."""
        if not is_stored(entry.value):
            return
        if entry.task is not None and entry.task.recipe_kept:
            entry.task.recipe_kept += 1  # _drop_value takes away the value's own
            rare.keeps_recipes = True
        self._drop_value(object_id, entry)

    def _drop_value(self, object_id: ObjectId, entry: Entry) -> None:
        value, entry.value = entry.value, None
        if type(value) is tuple:
            self._free_parts(object_id, value, entry)
        if entry.rare is not None and entry.rare.contained:
            contained, entry.rare.contained = entry.rare.contained, ()
            for inner, _ in contained:
                self.release(inner)

    def _free_parts(self, object_id: ObjectId, value: Value, entry: Entry) -> None:
        if is_stored(value):
            self._port.free_stored(object_id, value, entry.task)
            self._forget_copies(object_id, entry)
            self._release_recipes(entry.task)

    def _forget_copies(self, object_id: ObjectId, entry: Entry) -> None:
        rare = entry.rare
        if rare is None:
            return
        rare.near = None
        if rare.copies:
            copies, rare.copies = rare.copies, None
            self._port.free_copies(object_id, [address for address, _ in copies.values()])

    def _return_borrowed(self, object_id: ObjectId, entry: Entry, rare: Rare) -> None:
        owner = rare.owner
        assert owner is not None
        del self.entries[object_id]
        self._forget_borrowed(object_id, owner.process_id)
        if rare.registrations > 0:
            self._port.send_to(owner, messages.BorrowReleased((object_id,) * rare.registrations))
        contained = rare.contained
        for inner, _ in contained:
            self.release(inner)

    def _forget_borrowed(self, object_id: ObjectId, owner: ProcessId) -> None:
        ids = self._borrowed_from.get(owner)
        if ids is not None:
            ids.pop(object_id, None)
            if not ids:
                del self._borrowed_from[owner]

    # -- values --------------------------------------------------------------------------------------------------------
    def add_put(self, object_id: ObjectId, value: Value, contained: References) -> None:
        """A value made here by ``put``; its entry exists with the count of its reference."""
        entry = self.entries.get(object_id)
        if entry is not None:
            self._hold_contained(entry, contained)
            self._settle(object_id, entry, value)

    def resolve_made_here(self, object_id: ObjectId, value: Value, contained: References) -> None:
        """The value of a pending object was made by this process, of objects of its own."""
        self.add_put(object_id, value, contained)
        entry = self.entries.get(object_id)
        if entry is not None and entry.count <= 0:
            self._maybe_free(object_id, entry)

    def resolve(self, object_id: ObjectId, value: Value) -> bool:
        """The value of a pending object has come (from a task, or from the owner). False if nobody wants it."""
        entry = self.entries.get(object_id)
        value, references = unwrap(value)
        if entry is None:
            self._discard(object_id, value, references)
            return False
        if entry.value is not None:
            if references:
                self._give_up_registrations(references)
            return True
        if references:
            self._take_registrations(references)
            self._hold_contained(entry, references)
        if entry.rare is not None and entry.rare.keeps_recipes:
            entry.rare.keeps_recipes = False
            if not is_stored(value):
                self._release_recipes(entry.task)
        elif is_stored(value) and entry.task is not None:
            self._keep_recipes(entry.task)
        self._settle(object_id, entry, value)
        if entry.count <= 0:
            self._maybe_free(object_id, entry)
        return True

    def _settle(self, object_id: ObjectId, entry: Entry, value: Value) -> None:
        entry.value = value
        waiters, entry.waiters = entry.waiters, None
        if waiters is not None:
            for waiter in waiters:
                waiter(object_id)
        rare = entry.rare
        if rare is not None and rare.published:
            self._port.left(object_id)
            if is_stored(value) and object_id[:8] != self.address.process_id:
                self._port.claim(object_id, value)
        if rare is not None and rare.wanted_by:
            wanted, rare.wanted_by = rare.wanted_by, None
            for receiver in wanted.values():
                self._answer(object_id, entry, receiver)

    def _discard(self, object_id: ObjectId, value: Value, references: References) -> None:
        if is_stored(value) and object_id[:8] == self.address.process_id:
            self._port.free_stored(object_id, value, None)
        self._give_up_registrations(references)

    def _hold_contained(self, entry: Entry, references: References) -> None:
        if not references:
            return
        for inner, owner in references:
            self.adopt(inner, owner)
        entry.needs_rare().contained = references

    def _take_registrations(self, references: References) -> None:
        """The sender of a value registered us for what it contains."""
        for inner, owner in references:
            entry = self.adopt(inner, owner)
            rare = entry.rare
            if rare is not None and rare.owner is not None:
                rare.registrations += 1
            elif owner.process_id == self.address.process_id:
                self._unregister_us(inner, entry)
        for inner, _ in references:  # the holds of the containing entry follow; these were only for the moment
            entry = self.entries[inner]
            entry.count -= 1

    def _give_up_registrations(self, references: References) -> None:
        for inner, owner in references:
            self.adopt(inner, owner)
            entry = self.entries[inner]
            if entry.rare is not None and entry.rare.owner is not None:
                entry.rare.registrations += 1
            elif owner.process_id == self.address.process_id:
                self._unregister_us(inner, entry)
            self.release(inner)

    def when_ready(self, object_id: ObjectId, waiter: Waiter) -> bool:
        """Call ``waiter`` when the value is there; True (and no call) if it is there already."""
        entry = self.entries.get(object_id)
        if entry is None or entry.value is not None:
            return True
        if entry.waiters is None:
            entry.waiters = [waiter]
        else:
            entry.waiters.append(waiter)
        self.want(object_id, entry)
        return False

    def want(self, object_id: ObjectId, entry: Entry) -> None:
        """See to it that a missing value comes: ask its owner, or make it again if only its recipe was kept."""
        rare = entry.rare
        if rare is None:
            return
        if rare.owner is not None:
            if not rare.asked:
                rare.asked = True
                self._port.watch(rare.owner)
                self._port.send_to(rare.owner, messages.ObjectWanted((object_id,)))
        elif entry.value is None and rare.recipes > 0 and entry.task is not None and entry.task.is_finished():
            self._port.recover(object_id, entry.task, "its value was freed while its recipe was kept")

    def lost(self, object_id: ObjectId, place: Value, reason: str) -> None:
        """The place that the value names does not hold it any more. Recovers it, unless that is known already."""
        entry = self.entries.get(object_id)
        if entry is None or entry.value is None or entry.value != place:
            return
        rare = entry.rare
        entry.value = None
        if rare is not None and rare.owner is not None:
            rare.asked = True
            rare.near = None
            self._port.watch(rare.owner)
            self._port.send_to(rare.owner, messages.ObjectMissing(object_id, place))
            return
        if rare is not None and rare.copies:
            self._fall_back(object_id, entry, rare, next(iter(rare.copies)))
            self._port.free_stored(object_id, place, None)  # it may be there all the same, wanted by nobody
            return
        self._forget_copies(object_id, entry)
        self._port.recover(object_id, entry.task, reason)  # which holds the arguments again, before their recipes go
        if entry.value is not None:  # it can't be made again; whoever did not find it may have looked too soon
            self._port.free_stored(object_id, place, entry.task)
        self._release_recipes(entry.task)

    def void(self, object_id: ObjectId) -> None:
        """The value is going to be made again, with the others of its task."""
        entry = self.entries[object_id]
        value, entry.value = entry.value, None
        if is_stored(value):
            self._forget_copies(object_id, entry)
            self._release_recipes(entry.task)

    def _fall_back(self, object_id: ObjectId, entry: Entry, rare: Rare, node_id: NodeId) -> None:
        """Another node has a copy, as far as we know: that is where the object lies now."""
        assert rare.copies is not None
        address, value = rare.copies.pop(node_id)
        self._port.promote(object_id, address)
        self._settle(object_id, entry, value)

    def leaves(self, object_id: ObjectId, node: Address) -> None:
        """The node that keeps the object drains: another one has to, one with a copy if there is any."""
        entry = self.entries.get(object_id)
        if entry is None or not is_stored(entry.value) or entry.value[1] != node.node_id or self.is_borrowed(entry):
            return
        before, rare = entry.value, entry.needs_rare()
        self._leaving[node.node_id] = None
        chosen = next((where for where in rare.copies or () if where not in self._leaving), None)
        if rare.copies is None or chosen is None:
            self._port.keep(object_id, before, node)
            return
        self._fall_back(object_id, entry, rare, chosen)
        rare.copies[node.node_id] = (node, before)
        self._port.demote(object_id, node)

    def moved(self, object_id: ObjectId, value: Value) -> None:
        """Our node has found the object elsewhere on its host, or has copied it from another."""
        entry = self.entries.get(object_id)
        if entry is None or not is_stored(entry.value):
            return
        if value[1] == entry.value[1]:
            entry.value = value
        else:
            entry.needs_rare().near = value

    def not_near(self, object_id: ObjectId) -> None:
        """Our node's copy is gone."""
        entry = self.entries.get(object_id)
        if entry is not None and entry.rare is not None:
            entry.rare.near = None

    def copied(self, object_id: ObjectId, node: Address, value: Value) -> bool:
        """A node has a copy of an object of ours. False if it is not wanted: the object was freed or is being made."""
        entry = self.entries.get(object_id)
        if entry is None or not is_stored(entry.value) or self.is_borrowed(entry):
            return False
        if node.node_id != entry.value[1]:
            rare = entry.needs_rare()
            if rare.copies is None:
                rare.copies = {}
            rare.copies[node.node_id] = (node, value)
        return True

    # -- lineage -------------------------------------------------------------------------------------------------------
    def _keep_recipes(self, task: Any) -> None:
        if task.recipe_kept:
            task.recipe_kept += 1
            return
        task.recipe_kept = 1
        for inner in task.inputs():
            entry = self.entries.get(inner)
            if entry is not None and (entry.rare is None or entry.rare.owner is None):
                entry.needs_rare().recipes += 1

    def _release_recipes(self, task: Any) -> None:
        if task is None or not task.recipe_kept:
            return
        task.recipe_kept -= 1
        if task.recipe_kept:
            return
        for inner in task.inputs():
            entry = self.entries.get(inner)
            if entry is not None and entry.rare is not None and entry.rare.recipes > 0:
                entry.rare.recipes -= 1
                if entry.count <= 0:
                    self._maybe_free(inner, entry)

    # -- borrowers -----------------------------------------------------------------------------------------------------
    def register(self, object_id: ObjectId, borrower: Address, registrar: Address | None = None) -> bool:
        """``borrower`` holds a reference to an object that we own. False if we don't know the object.

        ``registrar``: who says so for it. Where that is for us, since a value with our own reference is on its way to
        us, and the registrar dies before it sends the value, the registration is void.
        """
        entry = self.entries.get(object_id)
        if entry is None:
            return False
        if registrar is not None and borrower.process_id == self.address.process_id:
            ids = self._registered_us.setdefault(registrar.process_id, {})
            ids[object_id] = ids.get(object_id, 0) + 1
            self._port.watch(registrar)
        rare = entry.needs_rare()
        if rare.borrowers is None:
            rare.borrowers = {}
        count = rare.borrowers.get(borrower.process_id, 0) + 1
        rare.borrowers[borrower.process_id] = count
        if count == 0:
            del rare.borrowers[borrower.process_id]
        if borrower.process_id != self.address.process_id:
            self._index_borrower(object_id, borrower)
            if not rare.published and self.publish(object_id):
                self._port.left(object_id)
        return True

    def _index_borrower(self, object_id: ObjectId, borrower: Address) -> None:
        ids = self._borrowed_from_us.get(borrower.process_id)
        if ids is None:
            ids = self._borrowed_from_us[borrower.process_id] = {}
            self._port.watch(borrower)
        ids[object_id] = None

    def unregister(self, object_id: ObjectId, borrower: ProcessId) -> None:
        """One registration of ``borrower`` less."""
        entry = self.entries.get(object_id)
        if entry is not None:
            self._unregister(object_id, entry, borrower)
            if entry.count <= 0:
                self._maybe_free(object_id, entry)

    def _unregister_us(self, object_id: ObjectId, entry: Entry) -> None:
        """A value with a reference of our own has come: what was registered for it is over."""
        for process_id, ids in self._registered_us.items():
            if object_id in ids:
                ids[object_id] -= 1
                if not ids[object_id]:
                    del ids[object_id]
                if not ids:
                    del self._registered_us[process_id]
                break
        self._unregister(object_id, entry, self.address.process_id)

    def _unregister(self, object_id: ObjectId, entry: Entry, borrower: ProcessId) -> None:
        rare = entry.needs_rare()
        if rare.borrowers is None:
            rare.borrowers = {}
        count = rare.borrowers.get(borrower, 0) - 1
        rare.borrowers[borrower] = count
        if count == 0:
            del rare.borrowers[borrower]
            ids = self._borrowed_from_us.get(borrower)
            if ids is not None:
                ids.pop(object_id, None)

    def answer_wanted(self, object_id: ObjectId, receiver: Address) -> None:
        """A borrower asks for the value: answer now, or as soon as there is one."""
        entry = self.entries.get(object_id)
        if entry is None:
            text = f"object {object_id.hex()} is not known to its owner any more: it was freed"
            value = self._port.error_value("ReferenceCountingAssertionError", text)
            self._port.send_to(receiver, messages.ObjectReady(object_id, value))
        elif entry.value is not None:
            self._answer(object_id, entry, receiver)
        else:
            rare = entry.needs_rare()
            if rare.wanted_by is None:
                rare.wanted_by = {}
            rare.wanted_by[receiver.process_id] = receiver
            self.want(object_id, entry)

    def _answer(self, object_id: ObjectId, entry: Entry, receiver: Address) -> None:
        contained = entry.rare.contained if entry.rare is not None else ()
        value = entry.value if not contained else (VALUE_REFS, entry.value, contained)
        message = messages.ObjectReady(object_id, value)
        self.register_receiver(contained, receiver, lambda: self._port.send_to(receiver, message))

    def register_receiver(self, references: References, receiver: Address, then: Callable[[], None]) -> None:
        """Register ``receiver`` with the owners of all ``references``, then call ``then`` (at once if all are ours)."""
        foreign: dict[Address, list[ObjectId]] = {}
        for inner, owner in references:
            if owner.process_id == self.address.process_id:
                self.register(inner, receiver)
            else:
                foreign.setdefault(owner, []).append(inner)
        if not foreign:
            then()
            return
        missing = len(foreign)

        def answered() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                then()

        for owner, ids in foreign.items():
            self._port.ask_registration(owner, tuple(ids), receiver, answered)

    def retained(
        self, candidates: Iterable[ObjectId], caller: ProcessId
    ) -> tuple[list[ObjectId], dict[Address, list[ObjectId]]]:
        """Of the references that came with a call, those that this process still holds and isn't registered for.

        Gives those whose owner is the caller (the result tells it), and the others by owner (to be registered before
        the result leaves). All of them count as registered from here on.
        """
        told: list[ObjectId] = []
        others: dict[Address, list[ObjectId]] = {}
        for object_id in candidates:
            entry = self.entries.get(object_id)
            if entry is None or entry.rare is None or entry.rare.owner is None:
                continue
            if entry.count <= 0 or entry.rare.registrations > 0:
                continue
            entry.rare.registrations = 1
            if entry.rare.owner.process_id == caller:
                told.append(object_id)
            else:
                others.setdefault(entry.rare.owner, []).append(object_id)
        return told, others

    # -- deaths --------------------------------------------------------------------------------------------------------
    def process_died(self, process_id: ProcessId, text: str) -> None:
        """Drop the registrations of a dead borrower; resolve what a dead owner will never answer."""
        for object_id, count in self._registered_us.pop(process_id, {}).items():
            for _ in range(count):
                self.unregister(object_id, self.address.process_id)
        for object_id in list(self._borrowed_from_us.pop(process_id, ())):
            entry = self.entries.get(object_id)
            if entry is not None and entry.rare is not None and entry.rare.borrowers:
                entry.rare.borrowers.pop(process_id, None)
                if entry.rare.wanted_by:
                    entry.rare.wanted_by.pop(process_id, None)
                if entry.count <= 0:
                    self._maybe_free(object_id, entry)
        for object_id in list(self._borrowed_from.get(process_id, ())):
            entry = self.entries.get(object_id)
            if entry is None or entry.rare is None:
                continue
            entry.rare.registrations = 0
            if entry.value is None and (entry.rare.asked or entry.waiters):
                self._port.orphaned(object_id, process_id, self._owner_died_text(object_id, text))

    # -- owners that die -----------------------------------------------------------------------------------------------
    @staticmethod
    def is_borrowed(entry: Entry) -> bool:
        return entry.rare is not None and entry.rare.owner is not None

    def publish(self, object_id: ObjectId) -> bool:
        """Whether anything is to be kept of an object outside of this process; if so, it counts as kept there."""
        entry = self.entries.get(object_id)
        if entry is None or self.is_borrowed(entry):
            return False
        rare = entry.needs_rare()
        if entry.task is None and entry.value is None and not rare.recipes:
            return False  # it is still to come
        if rare.on_free is not None:  # it stands for an actor
            return False
        rare.published = True
        return True

    def take_over(self, object_id: ObjectId, task: Any) -> None:
        """The owner is dead: the object is ours from now on, made by ``task``."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = self.entries[object_id] = Entry(None, 0)
        rare = entry.needs_rare()
        if rare.owner is not None:
            self._forget_borrowed(object_id, rare.owner.process_id)
            rare.owner, rare.registrations, rare.asked = None, 0, False
        entry.task = task
        rare.published = True

    def redirect(self, object_id: ObjectId, owner: Address) -> None:
        """Another process has taken the object over: it is borrowed from there from now on."""
        entry = self.entries[object_id]
        rare = entry.needs_rare()
        assert rare.owner is not None
        self._forget_borrowed(object_id, rare.owner.process_id)
        rare.owner, rare.registrations, rare.asked = owner, 0, False
        self._borrowed_from.setdefault(owner.process_id, {})[object_id] = None
        self.borrow(object_id, owner)
        self.want(object_id, entry)

    def borrow(self, object_id: ObjectId, owner: Address) -> None:
        """Register with the owner of an object whose reference did not come with a message."""

        def registered() -> None:
            entry = self.entries.get(object_id)
            if entry is not None and entry.rare is not None and entry.rare.owner == owner:
                entry.rare.registrations += 1
            else:
                self._port.send_to(owner, messages.BorrowReleased((object_id,)))

        self._port.ask_registration(owner, (object_id,), self.address, registered)

    @staticmethod
    def _owner_died_text(object_id: ObjectId, text: str) -> str:
        return (
            f"object {object_id.hex()} can't be read: the process that owned it is gone ({text}). "
            "Objects live as long as the process that made their reference: let the driver or a long-lived actor "
            "create what must outlive a worker"
        )

    # -- inspection ----------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Assert the table's invariants."""
        for object_id, entry in self.entries.items():
            rare = entry.rare
            borrowed = rare is not None and rare.owner is not None
            kept = rare is not None and (bool(rare.borrowers) or rare.recipes > 0)
            assert entry.count > 0 or kept or entry.value is None, f"{object_id.hex()} is held by nobody"
            assert entry.count >= 0, f"{object_id.hex()} has count {entry.count}"
            assert not (entry.value is not None and entry.waiters), f"{object_id.hex()} is there and still waited for"
            if borrowed:
                assert rare is not None and rare.owner is not None
                assert object_id in self._borrowed_from.get(rare.owner.process_id, {}), "borrowed but not indexed"
                assert not rare.borrowers, f"{object_id.hex()}: a borrower has no borrowers of its own"
        for owner, ids in self._borrowed_from.items():
            for object_id in ids:
                assert object_id in self.entries, f"{object_id.hex()} of {owner.hex()} is indexed but has no entry"

    def living(self) -> dict[ObjectId, int]:
        """Object ids and their counts; empty when every reference has returned."""
        return {object_id: entry.count for object_id, entry in self.entries.items()}
