"""What can go wrong with hosted environments. Each error says what to do next.

Where Gymnasium has an error for it, ours is an instance of that as well, so that code written for ``AsyncVectorEnv``
catches it.
"""

from __future__ import annotations

from gymnasium import error as gymnasium_error

from actorlib.exceptions import ActorlibError


class EnvironmentHostError(ActorlibError):
    """Base of the errors of environment hosts."""


class EnvironmentCreationError(EnvironmentHostError):
    """A sub-environment could not be constructed in its host; the text has the traceback."""


class EnvironmentSpacesError(EnvironmentHostError, RuntimeError):
    """Sub-environments whose spaces don't fit together."""


class EnvironmentNotRestorableError(EnvironmentHostError):
    """``on_failure="restore"`` was asked for an environment whose state can't be kept."""


class EnvironmentHostDiedError(EnvironmentHostError):
    """A host died or hung, and its environments could not, or should not, be brought back; the text says why."""


class InvalidActionError(EnvironmentHostError, gymnasium_error.InvalidAction, ValueError):
    """Actions whose number, shape or type does not fit the action space."""


class ResetNeededError(EnvironmentHostError, gymnasium_error.ResetNeeded):
    """A step before the first reset."""


class NotWholeHostsError(EnvironmentHostError, ValueError):
    """``send`` was given environments that are not all those of one or several hosts."""
