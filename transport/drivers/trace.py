"""Debug mode's trace: every message that a process sends or gets, a line each, in files of bounded size."""

from __future__ import annotations

import logging
import logging.handlers
import os

from actorlib.transport import limits
from actorlib.transport.ids import ProcessId


def open_trace(directory: str, process_id: ProcessId) -> logging.Logger:
    """A logger of its own, outside of the user's logging tree, that rotates its file."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"trace-{process_id.hex()}.log")
    logger = logging.Logger(f"actorlib.trace.{process_id.hex()}")
    kept = limits.trace_files_kept_max
    logger.addHandler(logging.handlers.RotatingFileHandler(path, maxBytes=limits.trace_bytes_max, backupCount=kept))
    return logger
