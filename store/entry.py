"""What a process knows of one object: the rows of its owner table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actorlib.transport.ids import NodeId, ObjectId, ProcessId
from actorlib.transport.link import Address
from actorlib.transport.messages import VALUE_ERROR, VALUE_REFS, VALUE_STORED, Value

Waiter = Callable[[ObjectId], None]
References = tuple[tuple[ObjectId, Address], ...]


class Recipe(Protocol):
    """What can make an object again (a task's state in the submitter)."""

    def inputs(self) -> Iterable[ObjectId]: ...


class Rare:
    """What few entries have."""

    __slots__ = (
        "asked",
        "borrowers",
        "contained",
        "copies",
        "keeps_recipes",
        "near",
        "on_free",
        "owner",
        "published",
        "recipes",
        "registrations",
        "wanted_by",
    )

    def __init__(self) -> None:
        self.owner: Address | None = None  # None: owned here
        self.asked = False  # the owner knows that we want the value
        self.registrations = 0  # how often the owner has us registered
        self.borrowers: dict[ProcessId, int] | None = None
        self.contained: References = ()
        self.recipes = 0  # tasks of living values that need this one's recipe
        self.keeps_recipes = False  # its value is gone, and its own task's arguments are kept for its recipe's sake
        self.wanted_by: dict[ProcessId, Address] | None = None
        self.on_free: Callable[[], None] | None = None
        self.copies: dict[NodeId, tuple[Address, Value]] | None = None  # on other nodes than the value names
        self.published = False  # its lineage is kept outside of this process
        self.near: Value = None  # the copy on this process's node


class Entry:
    """One object, as this process knows it. ``value`` None: not there yet."""

    __slots__ = ("count", "rare", "task", "value", "waiters")

    def __init__(self, task: Any = None, count: int = 1) -> None:
        self.value: Value = None
        self.count = count
        self.task = task
        self.waiters: list[Waiter] | None = None
        self.rare: Rare | None = None

    def needs_rare(self) -> Rare:
        if self.rare is None:
            self.rare = Rare()
        return self.rare


def unwrap(value: Value) -> tuple[Value, References]:
    """A value without its list of contained references, and that list."""
    if type(value) is tuple and value[0] == VALUE_REFS:
        return value[1], tuple((inner, Address(*owner)) for inner, owner in value[2])
    return value, ()


def is_error(value: Value) -> bool:
    return type(value) is tuple and value[0] == VALUE_ERROR


def is_stored(value: Value) -> bool:
    return type(value) is tuple and value[0] == VALUE_STORED
