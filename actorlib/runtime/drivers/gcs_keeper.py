"""Who keeps the GCS alive under ``actorlib start --head``: the head's node, by a zygote that does nothing else.

The zygote has everything imported, so a GCS that was killed is back within milliseconds, plus the time that its tables
take to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from actorlib.scheduler.drivers.zygote import ZygoteClient
from actorlib.transport.drivers.loop import Loop

GCS_MODULE = "actorlib.runtime.drivers.gcs_process"
DEATHS_MAX = 5
"""That many deaths in a row, none of them after it has served, and the node gives up."""
REASON_BYTES_MAX = 2000


class GcsKeeper:
    """Forks the GCS, again whenever it ends.

    Args:
        zygote: made before the node had threads.
        on_boot: called after each fork with the number of the life that it begins.
        give_up: called with the reason when it can't be kept alive.
    """

    def __init__(
        self,
        loop: Loop,
        zygote: ZygoteClient,
        config: dict[str, Any],
        log_path: str,
        give_up: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self.zygote = zygote
        self._config = config
        self._log_path = log_path
        self._give_up = give_up
        self._deaths = 0
        self._closing = False
        self.boots = 0
        self.os_pid = 0
        loop.add_reader(zygote.fileno(), self._on_zygote)
        self._fork()

    def _fork(self) -> None:
        self.boots += 1
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.zygote.fork({**self._config, "boot": self.boots}, log, os.dup(log))

    def served(self) -> None:
        """It has answered: what killed it before does not count any more."""
        self._deaths = 0

    def _on_zygote(self) -> None:
        if not self.zygote.reports(self._on_report) and not self._closing:
            self._loop.remove_reader(self.zygote.fileno())
            self._give_up("the zygotes of the GCS die as soon as they are started, so it can't be started any more")

    def _on_report(self, kind: str, _: bytes, os_pid: int, status: int) -> None:
        if kind == "started":
            self.os_pid = os_pid
            return
        if self._closing:
            return
        if kind == "lost":  # with its zygote, before it was born
            self._fork()
            return
        self._deaths += 1
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1 and self._deaths == self.boots:
            self._give_up(f"the GCS could not be started: {self.last_words()}")
        elif self._deaths >= DEATHS_MAX:
            self._give_up(f"the GCS ended {self._deaths} times in a row: {self.last_words()}")
        else:
            self._fork()

    def last_words(self) -> str:
        with open(self._log_path, "rb") as source:
            source.seek(max(0, os.path.getsize(self._log_path) - REASON_BYTES_MAX))
            lines = source.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """After the loop is closed: end the GCS."""
        self._closing = True
        self.zygote.close()
