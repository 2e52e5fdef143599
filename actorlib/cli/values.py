"""Values on the command line that are more than a word."""

from __future__ import annotations

import json
from typing import Any

import click

from actorlib import options


class JsonObject(click.ParamType):  # type: ignore[type-arg]
    """A JSON object; ``check`` says what is wrong with it by raising ValueError or TypeError."""

    name = "json"

    def __init__(self, example: str, check: Any) -> None:
        self.example = example
        self.check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
            if not isinstance(found, dict):
                raise ValueError("it is no object")
            self.check(found)
        except (ValueError, TypeError) as error:
            self.fail(f"{value!r} can't be used: {error}; write it as {self.example}", param, ctx)
        return found


def _check_labels(labels: dict[str, Any]) -> None:
    for name, value in labels.items():
        if not isinstance(value, str):
            raise TypeError(f"label {name!r} is a {type(value).__name__}, not a string")


RESOURCES = JsonObject("'{\"disk\": 2}'", lambda found: options._resources("resources", found))
LABELS = JsonObject('\'{"zone": "a"}\'', _check_labels)
