"""The head's zygotes, those of the GCS and of the workers, can die: the cluster goes on."""

from __future__ import annotations

import os
import signal

import actorlib
from actorlib.transport.drivers.processes import children_of, process_name


@actorlib.remote(num_cpus=0, lifetime="detached")
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


def test_the_gcs_is_kept_alive_when_its_zygote_has_died(machines):
    machines.start_head()
    machines.join(namespace="zygotes")
    first = Counter.options(name="first").remote()
    assert actorlib.get(first.add.remote(), timeout=60) == 1
    gcs = machines.gcs_pid()
    zygotes = [pid for pid in children_of(machines.head.pid) if process_name(pid) == "actorlib:zygote"]
    assert len(zygotes) == 2
    for pid in zygotes:
        os.kill(pid, signal.SIGKILL)
    second = Counter.options(name="second").remote()
    assert actorlib.get(second.add.remote(), timeout=60) == 1
    assert machines.gcs_pid() == gcs
    os.kill(gcs, signal.SIGKILL)
    assert actorlib.get(actorlib.get_actor("first").add.remote(), timeout=60) == 2
    assert actorlib.get(actorlib.get_actor("second").add.remote(), timeout=60) == 2
    for actor in (first, second):
        actorlib.kill(actor)
