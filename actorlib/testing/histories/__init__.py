"""Histories of calls, and whether they could have happened one at a time.

``history()`` records calls on actors; ``check`` and ``History.assert_linearizable`` look for one order of all calls,
in keeping with their times, in which a *model* gives the very results that were seen.
"""

from actorlib.testing.histories.linearizability import Outcome, Verdict, check
from actorlib.testing.histories.models import Counter, KeyValue, Lock, Model, Queue, Register, Set
from actorlib.testing.histories.operation import IMPOSSIBLE, MAYBE, NEVER, Operation, Raised
from actorlib.testing.histories.plain_model import PlainModel
from actorlib.testing.histories.recorder import History, NotLinearizable, Undecided, Watched, history
from actorlib.testing.histories.timeline import draw

__all__ = [
    "IMPOSSIBLE",
    "MAYBE",
    "NEVER",
    "Counter",
    "History",
    "KeyValue",
    "Lock",
    "Model",
    "NotLinearizable",
    "Operation",
    "Outcome",
    "PlainModel",
    "Queue",
    "Raised",
    "Register",
    "Set",
    "Undecided",
    "Verdict",
    "Watched",
    "check",
    "draw",
    "history",
]
