"""The inline engine: everything runs in the caller's process, in the order in which it is submitted.

For hunting bugs. A task runs when ``.remote()`` is called, on the caller's own stack: ``breakpoint()`` inside it stops
right there, a profiler sees it, an endless loop can be interrupted. Actors are plain objects behind handles. No
socket is opened and no process started. Values are still copied through serialization, so that nobody can share state
by accident and what can't be pickled is found here, too; errors are still raised by ``get``.

* ``engine``        the operations of the seam
* ``calls``         one call: its arguments, its results, running it
* ``actors``        instances behind handles, their queues, their end and their return
* ``outcomes``      what a reference stands for
* ``event_loop``    the private loop of async actors and async tasks
* ``bookkeeping``   resources and placement groups of the one node there is
"""

from __future__ import annotations

from actorlib.engine import Engine
from actorlib.engines.registry import Settings


def start(settings: Settings) -> Engine:
    """Start the engine. Nothing outside of this process changes."""
    from actorlib.engines.inline.engine import InlineEngine

    return InlineEngine(settings)
