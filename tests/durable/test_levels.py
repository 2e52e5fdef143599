"""What ``durability="auto"`` chooses, and where a log lies then."""

from __future__ import annotations

import glob
import os
import sys

import actorlib
from actorlib.cluster_utils import Cluster
from actorlib.runtime.call_log_format import CALL, HEAD
from actorlib.runtime.drivers.call_log_file import CallLogFile, RealFiles
from actorlib.runtime.drivers.driver import address_of
from actorlib.runtime.drivers.log_replica import read_copy
from actorlib.runtime.drivers.node_process import NodeConfig, launch_node
from actorlib.transport.ids import ActorId
from tests.conftest import eventually

T = 60
SESSIONS = f"/tmp/actorlib-{os.getuid()}/s-*"


@actorlib.remote(num_cpus=0, checkpoint=100)
class Counter:
    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value


def five_calls():
    counter = Counter.remote()
    assert actorlib.get([counter.add.remote() for _ in range(5)], timeout=T)[-1] == 5
    return counter


def log_of(counter, directory):
    """The level that the log names, and the positions in it."""
    actor_id = ActorId(counter._actor_id)
    records = CallLogFile(RealFiles(), f"{directory}/calls/{actor_id.hex()}", actor_id).read()
    (level,) = {record[6] for record in records if record[0] == HEAD}
    return level, [record[1] for record in records if record[0] == CALL]


def test_in_a_session_of_its_own_it_outlives_processes():
    with actorlib.init(num_cpus=1) as session:
        assert log_of(five_calls(), session.address_info["session_dir"]) == ("worker", [0, 1, 2, 3, 4, 5])


def test_on_a_cluster_of_one_node_with_a_directory_it_outlives_a_power_cut(tmp_path):
    path = [path or os.getcwd() for path in sys.path]
    config = NodeConfig(num_cpus=1, directory=str(tmp_path), durable=True, sys_path=path, cwd=os.getcwd())
    node = launch_node(config)
    try:
        with actorlib.init(address=address_of(node)):
            assert log_of(five_calls(), tmp_path) == ("disk", [0, 1, 2, 3, 4, 5])
    finally:
        node.stop()


def test_where_there_is_another_node_it_outlives_the_loss_of_one():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        cluster.connect()
        cluster.wait_for_nodes()
        counter = five_calls()
        folder = counter._actor_id.hex()
        (own,) = glob.glob(f"{SESSIONS}/calls/{folder}")
        (copy,) = glob.glob(f"{SESSIONS}/copies/{folder}/copy")
        session, other = os.path.dirname(os.path.dirname(own)), os.path.dirname(os.path.dirname(os.path.dirname(copy)))
        assert session != other
        assert log_of(counter, session) == ("replicated", [0, 1, 2, 3, 4, 5])
        with open(copy, "rb") as source:
            assert [record[1] for record in read_copy(source.read()) if record[0] == CALL] == [0, 1, 2, 3, 4, 5]
        actorlib.kill(counter)
        assert eventually(lambda: not os.path.exists(own) and not os.path.exists(copy), 30)
    finally:
        cluster.shutdown()
