"""The Ray engine: actorlib's API, and what is its own, on a Ray cluster that is there anyway.

* ``engine``       the operations of the seam, each a call of Ray's public API
* ``options``      our options as Ray's
* ``refs``         references and handles that wrap Ray's, and the way back
* ``streams``      generators of references
* ``hosting``      what runs in Ray's workers: tasks and actors with our surroundings
* ``durable``      durable actors: their calls and checkpoints; ``inputs`` what calls learn from outside, ``journal``
                   where log and checkpoints lie, ``durable_view`` what can be asked of them
* ``watching``     monitors, links and dead letters; ``ends`` what is known of an actor's end
* ``deadlines``    who is late is cancelled
* ``errors``       Ray's exceptions as ours
* ``session``      starting or joining Ray, and sending this package to workers that lack it

Nothing here is imported before ``init(engine="ray")`` is called, or before a Ray worker runs our code.
"""

from __future__ import annotations

from actorlib.engine import Engine
from actorlib.engines.registry import Settings


def start(settings: Settings) -> Engine:
    """Start Ray here, or join the cluster at ``settings.address``."""
    from actorlib.engines.on_ray import session

    return session.start(settings)


def arguments() -> list[str]:
    """What ``init`` takes here beside its own arguments."""
    from actorlib.engines.on_ray import session

    return session.arguments()


def attach() -> Engine:
    """The engine of a Ray worker, made when its code first needs one."""
    from actorlib.engines.on_ray import session

    return session.attach()
