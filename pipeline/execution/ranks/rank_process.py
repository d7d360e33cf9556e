"""What the actor of a rank tells about itself before it joins the others."""

from __future__ import annotations

import socket

from foldcp.pipeline.execution import ray_cluster  # noqa: F401  sets Ray's environment
from foldcp.pipeline.execution.results import DeviceLocation

import ray  # isort: skip  after ray_cluster.py, which sets its environment


class RankProcess:
    """A process of Ray that is to be a rank."""

    def device_location(self) -> DeviceLocation:
        """The node and the GPU that Ray gave."""
        gpus = ray.get_gpu_ids()
        node = ray.get_runtime_context().get_node_id()
        return DeviceLocation(node, str(gpus[0]) if gpus else "")

    def rendezvous_address(self) -> str:
        """A free address on this machine at which the ranks can join each other."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"
