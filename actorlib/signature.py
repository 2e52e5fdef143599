"""Whether a call's arguments fit a function, checked where the call is made and not where it would run."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple


class Arity(NamedTuple):
    """What a function takes, as plain data that can travel. ``maximum`` -1: any number."""

    required: int
    maximum: int
    names: tuple[str, ...]  # of all parameters that can be given by position, in order
    required_names: tuple[str, ...]  # of keyword-only parameters without a default
    keyword_names: tuple[str, ...]  # of all keyword-only parameters
    takes_any_keyword: bool


def arity_of(function: Any, skip_self: bool = False) -> Arity | None:
    """The arity of a function, or None if it can't be told (some builtins)."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if skip_self:
        parameters = parameters[1:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return Arity(
        sum(p.default is p.empty for p in positional),
        -1 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional),
        tuple(p.name for p in positional),
        tuple(p.name for p in keyword if p.default is p.empty),
        tuple(p.name for p in keyword),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def check_call(arity: Arity | None, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise the TypeError that the call itself would raise."""
    if arity is None:
        return
    count = len(args)
    if (
        not kwargs
        and not arity.required_names
        and arity.required <= count
        and (arity.maximum < 0 or count <= arity.maximum)
    ):
        return
    if 0 <= arity.maximum < count:
        raise TypeError(f"{name}() takes {arity.maximum} positional arguments but {count} were given")
    for keyword in kwargs:
        if keyword in arity.names[:count]:
            raise TypeError(f"{name}() got multiple values for argument {keyword!r}")
        if keyword not in arity.names and keyword not in arity.keyword_names and not arity.takes_any_keyword:
            raise TypeError(
                f"{name}() got an unexpected keyword argument {keyword!r}; it takes {', '.join(arity.names)}"
            )
    missing = [parameter for parameter in arity.names[count : arity.required] if parameter not in kwargs]
    missing += [parameter for parameter in arity.required_names if parameter not in kwargs]
    if missing:
        raise TypeError(f"{name}() is missing {len(missing)} required argument(s): {', '.join(missing)}")
