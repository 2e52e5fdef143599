"""What user code may have done to its process: closed its outputs, or changed the directory. The next call starts as
the first did.

This is looked at after every call, so it has to cost next to nothing: one cheap system call for the outputs, none for
the directory (an audit hook tells when it is changed).
"""

from __future__ import annotations

import os
import select
import sys
from typing import Any

OUTPUTS = ((1, "stdout"), (2, "stderr"))


class Surroundings:
    """The outputs and the directory of a worker, as they were before it ran anything."""

    def __init__(self) -> None:
        self._kept = {fd: os.dup(fd) for fd, _ in OUTPUTS}
        self._closed = select.poll()
        for fd in self._kept:
            self._closed.register(fd, 0)  # tells what can't be masked, and of that it is POLLNVAL that matters
        self._directory = os.getcwd()
        self._moved = False
        sys.addaudithook(self._on_audit)

    def _on_audit(self, event: str, _: tuple[Any, ...]) -> None:
        if event == "os.chdir":
            self._moved = True

    def mend(self, directory_too: bool) -> None:
        """Put back what is not as it was. An actor's process is its own: it stays in the directory that it chose."""
        for fd, event in self._closed.poll(0):
            if event & select.POLLNVAL:
                os.dup2(self._kept[fd], fd)
        for fd, name in OUTPUTS:
            if sys.__dict__[name].closed:
                sys.__dict__[name] = os.fdopen(fd, "w", 1, errors="backslashreplace", closefd=False)
        if self._moved and directory_too:
            os.chdir(self._directory)
            self._moved = False
