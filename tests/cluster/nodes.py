"""A Ray cluster of several nodes on this machine, whose nodes can be killed and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil

from tests.ports import node_ports

BIN = Path(sys.executable).parent
RAY = str(BIN / "ray")
# Jobs run the ``python`` that the head node found on its path.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",
    # A node that is lost shall be missed within seconds.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
MARK = "RAYREEL_TEST_NODE"
_STORE = "--object-store-memory=100000000"


@dataclass
class Node:
    """A started node; every process of it has inherited its mark.

    Attributes:
        options: Of ``ray start``.
        environment: Beside this process's.
    """

    options: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid4().hex)

    def start(self) -> None:
        command = [RAY, "start", "--block", _STORE, "--disable-usage-stats", *self.options]
        environment = {**ENVIRONMENT, **self.environment, MARK: self.mark}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End all of it at once, as a machine that loses its power."""
        for process in self.processes():
            with_pid(process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Its processes whose title has a text."""
        return [p for p in marked(MARK, self.mark) if title in " ".join(_title(p))]


@dataclass
class Cluster:
    """A head node and others.

    Attributes:
        address: For drivers on this machine.
        dashboard: For jobs.
        nodes: The head first.
    """

    address: str
    dashboard: str
    nodes: list[Node]

    def workers(self, title: str) -> list[psutil.Process]:
        """Actors on any node whose title has a text."""
        return [process for node in self.nodes for process in node.processes(title)]


@contextmanager
def cluster(*cpus: int, environment: dict[str, str] | None = None) -> Iterator[Cluster]:
    """A cluster with nodes of so many CPUs each; nodes after the head come and go as one likes."""
    gcs, dashboard, agent, client, *rest = free_ports(4 + 2 * len(cpus))
    # Sockets lie in it, whose paths must be short.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        ports = f"--dashboard-port={dashboard} --ray-client-server-port={client}"
        head = [
            *("--head", f"--port={gcs}", f"--temp-dir={folder}", f"--num-cpus={cpus[0]}"),
            *(*ports.split(), f"--dashboard-agent-listen-port={agent}", *_worker_ports(0)),
        ]
        nodes = [Node(head, environment or {})]
        for number, count in enumerate(cpus[1:]):
            options = [
                *(f"--address=127.0.0.1:{gcs}", f"--num-cpus={count}"),
                *_worker_ports(1 + number),
                f"--dashboard-agent-listen-port={rest[2 * number]}",
            ]
            nodes.append(Node(options, environment or {}))
        made = Cluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", nodes)
        try:
            nodes[0].start()
            wait_for_answer(f"{made.dashboard}/api/version", nodes[0].process)
            for node in nodes[1:]:
                node.start()
            wait(lambda: len(_alive(made)) == len(cpus), "all nodes")
            yield made
        finally:
            for node in reversed(nodes):
                node.kill()


def _worker_ports(node: int) -> tuple[str, str]:
    ports = node_ports(node)
    return f"--min-worker-port={ports[0]}", f"--max-worker-port={ports[-1]}"


def _alive(made: Cluster) -> list[object]:
    try:
        with urllib.request.urlopen(f"{made.dashboard}/api/v0/nodes?detail=0", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]["result"]
    except (urllib.error.URLError, TimeoutError, KeyError):
        return []
    return [node for node in found if node["state"] == "ALIVE"]


def marked(name: str, value: str) -> Iterator[psutil.Process]:
    """Processes that have inherited a variable, and are not only waiting to be reaped."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != "zombie":
                yield process
        except psutil.Error:
            continue


def with_pid(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait(done, what: str, timeout_s: float = 120, poll_s: float = 0.1) -> None:
    """Wait for something, and fail by its name."""
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(poll_s)


def wait_for_answer(url: str, process: "subprocess.Popen[bytes]", timeout_s: float = 90) -> None:
    """Wait until a server answers."""

    def answers() -> bool:
        assert process.poll() is None, f"the server of {url} ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    wait(answers, f"an answer from {url}", timeout_s, 0.5)


def _title(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
