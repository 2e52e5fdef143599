"""Keys that a node has not heard of: who is to try again in a moment, and who is refused.

A new key is made at the head and reaches the other nodes a moment later; whoever uses it at once may be there first. To
be refused is final (libzmq does not dial again), so an unknown key is told to come again until
``limits.new_key_grace_s`` after it was first seen; by then the news is there, or it is a stranger's.

Strangers can't use that: a key has one grace in ``limits.new_key_forgotten_s``, and no more than
``limits.new_keys_waiting_max`` have one at a time. When there are more, keys are refused at once, as without this. What
a connection may cost before it has proved a key is bounded elsewhere (``drivers/access.py``).
"""

from __future__ import annotations

from actorlib.transport import limits


class NotHeardOf(Exception):
    """Nothing is known of this key yet: its owner is to try again."""


class Newcomers:
    """See the module's docstring.

    Example:
        >>> newcomers = Newcomers()
        >>> newcomers.may_try_again(0.0, b"key"), newcomers.may_try_again(limits.new_key_grace_s, b"key")
        (True, False)
    """

    def __init__(self) -> None:
        self._first_seen: dict[bytes, float] = {}  # oldest first

    def may_try_again(self, now: float, key: bytes) -> bool:
        """Whether the owner of an unknown key is to come again; else it is refused."""
        while self._first_seen and now - next(iter(self._first_seen.values())) >= limits.new_key_forgotten_s:
            del self._first_seen[next(iter(self._first_seen))]
        if key not in self._first_seen:
            if len(self._first_seen) >= limits.new_keys_waiting_max:
                return False
            self._first_seen[key] = now
        return now - self._first_seen[key] < limits.new_key_grace_s
