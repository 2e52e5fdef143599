"""The files of a node's own checkpoint store, for workers on other nodes that come to life from them."""

from __future__ import annotations

import os
from typing import Any

from actorlib.transport import limits, messages
from actorlib.transport.codec import InPlace
from actorlib.transport.link import Handler, Link


class StoredFiles:
    """Hands out parts of them. Nothing outside of ``directory`` can be named."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.handlers: dict[type, Handler] = {messages.StoredRead: self._on_read}

    def _on_read(self, link: Link, message: messages.StoredRead) -> None:
        link.send(messages.StoredPart(message.request_id, *self._part(message.name, message.offset)))

    def _part(self, name: str, offset: int) -> tuple[int, Any]:
        """The size of the file and some of it; -1 if there is none, or it is none of this store."""
        if os.path.isabs(name) or os.path.normpath(name) != name or name.startswith(".."):
            return -1, b""
        try:
            with open(os.path.join(self._directory, name), "rb", buffering=0) as source:
                size = os.fstat(source.fileno()).st_size
                source.seek(max(0, offset))
                return size, InPlace(source.read(limits.stored_part_bytes))
        except OSError:
            return -1, b""
