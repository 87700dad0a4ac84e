"""A whole service in processes of its own, which can be killed and started again."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import yaml

from tests.cluster.nodes import marked, wait, with_pid
from tests.ports import server_ports

# Of the machine, which may be busy with other things.
READY_S = 300.0
NAME = "rayreel"
REPLICAS = ("text", "stage1", "stage2", "decode", "dispatcher", "ingress")
"""Deployments of a service whose stages are in pools of their own."""

# Ray gives a node half a minute to start, which a busy machine may not have; who runs a service
# starts it again.
_SLOW_START = "The current node timed out during startup"
_MARK = "RAYREEL_TEST_SERVICE"
_ENVIRONMENT = {
    # Memory that others on this machine take is no reason to kill anybody.
    "RAY_memory_monitor_refresh_ms": "0",
    # The rest of a cluster without its head shall end within seconds.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
_COMMAND = "from rayreel.cli import main; main()"


class ServiceProcess:
    """``rayreel serve`` with a cluster of its own; all its processes have inherited its mark.

    Attributes:
        output: The service directory.
        url: Where it answers.
    """

    def __init__(self, folder: Path, ray_folder: str, spec: Mapping[str, Any]) -> None:
        """Nothing runs yet.

        Args:
            folder: Of the spec, the output and the log.
            ray_folder: Of the cluster, with a short path.
            spec: Of the service.
        """
        self.output = folder / "service"
        self._folder, self._ray_folder = folder, ray_folder
        (folder / "service.yaml").write_text(yaml.safe_dump({"name": NAME, **spec}))
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._mark = uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again over the same files."""
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {_MARK: self._mark, "RAY_TMPDIR": self._ray_folder, **_ENVIRONMENT}
        arguments = [
            *("serve", str(self._folder / "service.yaml"), "-o", str(self.output)),
            *("--port", str(self._port)),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def ended(self) -> bool:
        """Whether the command has ended; what it started may be there."""
        return self._process is None or self._process.poll() is not None

    def wait_until_ready(self) -> None:
        """Wait until jobs are accepted and worked on."""

        def ready() -> bool:
            if self.ended and _SLOW_START in self.log():
                self.kill()
                self.start()
            assert not self.ended, f"the service ended:\n{self.log()}"
            return self.is_ready

        wait(ready, f"a service:\n{self.log()}", READY_S)

    @property
    def is_ready(self) -> bool:
        """Whether it says that jobs are accepted and worked on."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        return False

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Its processes whose title has a text."""
        return [one for one in marked(_MARK, self._mark) if title in _title(one)]

    def pids(self, title: str) -> set[int]:
        """Ids of them."""
        return {process.pid for process in self.processes(title)}

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The actors of a deployment."""
        return self.processes(f"ServeReplica:{NAME}:{deployment}")

    def kill(self) -> None:
        """End all of it at once, as a machine that loses its power."""
        while found := self.processes():
            for process in found:
                with_pid(process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> int:
        """Ask it to end, as Ctrl+C does, and wait until it has."""
        assert self._process is not None, "started before"
        self._process.terminate()
        return self._process.wait(READY_S)

    def log(self) -> str:
        """The last of what it wrote."""
        with suppress(FileNotFoundError):
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
        return ""

    @property
    def _log(self) -> Path:
        return self._folder / "service.log"


@contextmanager
def service(folder: Path, spec: Mapping[str, Any]) -> Iterator[ServiceProcess]:
    """A service that is ready; nothing of it is left afterwards.

    Args:
        folder: Of its files.
        spec: Of the service; its output is in the folder.
    """
    # Sockets lie in it, whose paths must be short.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as ray_folder:
        made = ServiceProcess(folder, ray_folder, spec)
        try:
            made.start()
            made.wait_until_ready()
            yield made
        finally:
            made.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def free_port() -> int:
    """One of this test process that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(server_ports())
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
