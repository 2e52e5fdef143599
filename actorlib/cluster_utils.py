"""Several real node processes on one machine, for tests of programs that run on a cluster."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from actorlib.runtime.drivers.driver import address_of
from actorlib.runtime.drivers.node_process import NodeConfig, NodeHandle, launch_node
from actorlib.runtime.drivers.session_file import address_to_json

NODE_ARGUMENTS = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "memory")


class Cluster:
    """A head node and others, each a process of its own that ends with this one.

    Args:
        initialize_head: start the head at once.
        head_node_args: what the head has, as in ``add_node``.
        connect: also join it with ``actorlib.init(address=cluster.address)``.

    Example:
        >>> cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        >>> node = cluster.add_node(num_cpus=2)
        >>> actorlib.init(address=cluster.address)
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: dict[str, Any] | None = None,
    ) -> None:
        self.head_node: NodeHandle | None = None
        self.worker_nodes: list[NodeHandle] = []
        self._connected = False
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()
        elif connect or head_node_args:
            raise ValueError("connect and head_node_args need initialize_head=True")

    @property
    def address(self) -> str:
        """What ``actorlib.init(address=...)`` takes."""
        if self.head_node is None:
            raise RuntimeError("the cluster has no head yet; call add_node() first")
        return address_of(self.head_node)

    def connect(self, namespace: str | None = None) -> Any:
        """Join the cluster from this process."""
        from actorlib import api

        self._connected = True
        return api.init(address=self.address, namespace=namespace)

    def add_node(self, wait: bool = True, separate_host: bool = False, **arguments: Any) -> NodeHandle:
        """Start a node. The first is the head.

        Args:
            wait: until the driver sees it, if it has joined.
            separate_host: as on a machine of its own: it reads nothing of the others' shared memory, and they nothing
                of its; objects are copied between them as over a network.
            arguments: num_cpus, num_gpus, resources, labels, memory (bytes), object_store_memory (bytes).
        """
        unknown = [name for name in arguments if name not in NODE_ARGUMENTS]
        if unknown:
            raise TypeError(f"add_node() has no argument {unknown[0]!r}; it takes {', '.join(NODE_ARGUMENTS)}")
        given = {name: value for name, value in arguments.items() if value is not None}
        config = NodeConfig(**given)
        config.sys_path = list(dict.fromkeys(path or os.getcwd() for path in sys.path))
        config.cwd = os.getcwd()
        if self.head_node is not None:
            config.gcs = address_to_json(self.head_node.gcs)
        if separate_host:
            config.host_id = f"separate-{os.urandom(8).hex()}"
        node = launch_node(config)
        if self.head_node is None:
            self.head_node = node
        else:
            self.worker_nodes.append(node)
        if wait and self._connected:
            self.wait_for_nodes()
        return node

    def remove_node(self, node: NodeHandle, allow_graceful: bool = True) -> None:
        """End a node: in good order, or as if its machine had gone."""
        if node is self.head_node:
            raise ValueError("the head can't be removed from its cluster; shut the cluster down")
        self.worker_nodes.remove(node)
        if allow_graceful:
            node.stop()
        else:
            node.kill()

    def wait_for_nodes(self, timeout: float = 30.0) -> None:
        """Wait until every node of this cluster is seen by the driver, which must have joined. Raises TimeoutError."""
        from actorlib import api

        wanted = {node.address.node_id.hex() for node in (self.head_node, *self.worker_nodes) if node is not None}
        deadline = time.monotonic() + timeout
        while True:
            alive = {row["NodeID"] for row in api.nodes() if row["Alive"]}
            if wanted <= alive:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(wanted - alive)} of {len(wanted)} nodes did not join within {timeout} s")
            time.sleep(0.01)

    def shutdown(self) -> None:
        """End the session if this cluster was joined, then all nodes."""
        from actorlib import api

        if self._connected:
            api.shutdown()
            self._connected = False
        for node in (*self.worker_nodes, self.head_node):
            if node is not None:
                node.stop()
        self.worker_nodes.clear()
        self.head_node = None
