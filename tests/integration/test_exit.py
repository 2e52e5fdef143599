"""exit_actor(): an end that was wanted is never taken for a crash, whatever arrives first."""

from __future__ import annotations

import time

import pytest

import actorlib
from actorlib import exceptions
from actorlib.testing import simulate, simulation

T = 60


class Plain:
    """Its hook takes a while."""

    def __init__(self, path=None):
        self.path = path

    def start(self):
        return 1

    def leave(self):
        actorlib.exit_actor()

    def __shutdown__(self):
        if self.path is not None:
            time.sleep(0.3)
            self.path.write_text("the hook has ended")


class Async(Plain):
    async def leave(self):
        actorlib.exit_actor()


KINDS = {"sync": (Plain, {}), "threads": (Plain, {"max_concurrency": 3}), "async": (Async, {})}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hook_runs_to_its_end_and_the_actor_is_not_restarted(kind, tmp_path):
    cls, options = KINDS[kind]
    path = tmp_path / "hook"
    with actorlib.init(num_cpus=1):
        actor = actorlib.remote(num_cpus=0, max_restarts=-1, **options)(cls).remote(path)
        assert actorlib.get(actor.start.remote(), timeout=T) == 1
        down = actorlib.monitor(actor)
        with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
            actorlib.get(actor.leave.remote(), timeout=T)
        told = actorlib.get(down, timeout=T)
    assert (told.kind, told.normal) == ("exited", True)
    assert path.read_text() == "the hook has ended"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{"max_restarts": -1}, {"checkpoint": 100}], ids=["plain", "durable"])
def test_the_kernel_may_be_faster_than_the_last_word(kind, more, monkeypatch):
    monkeypatch.setattr(simulation, "NOTICE_OF_DEATH_S", 0.0)
    cls, options = KINDS[kind]
    if "checkpoint" in more:
        options = {}  # one call at a time
    for seed in range(5):
        with simulate(seed=seed) as world:
            actor = actorlib.remote(num_cpus=0, **options, **more)(cls).remote()
            assert actorlib.get(actor.start.remote(), timeout=T) == 1
            down = actorlib.monitor(actor)
            with pytest.raises(exceptions.ActorDiedError, match="exit_actor"):
                actorlib.get(actor.leave.remote(), timeout=T)
            assert actorlib.get(down, timeout=T).kind == "exited"
            (record,) = world.gcs.actors.actors.values()
            assert record.incarnation == 0
            del actor, down
