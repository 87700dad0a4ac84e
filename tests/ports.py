"""Ports that nobody else takes, where several processes share the tests.

Below 32768, from where on the system gives ports to whoever asks for any, each process of a run has
ranges of its own.
"""

import os

# As pytest-xdist names its processes, gw0 and so on; a run in one process has no name.
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
assert _PROCESS < 4, "no more ports are set aside"
_NODES, _SERVERS = 2500, 400


def node_ports(number: int) -> range:
    """For the workers of one of up to five nodes of a Ray cluster."""
    assert number < 5, "no more ports are set aside"
    low = 10000 + _NODES * _PROCESS + 500 * number
    return range(low, low + 400)


def server_ports() -> range:
    """For servers that want the ports 10000 above as well."""
    low = 21000 + _SERVERS * _PROCESS
    return range(low, low + _SERVERS)
