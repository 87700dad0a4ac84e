"""A head node of Ray that takes jobs, on ports of its own."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
# Jobs run the commands that the head node finds on its path.
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


@contextmanager
def running_head() -> Iterator[str]:
    """Start a head node; gives the address of its dashboard."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = _free_ports(len(names))
    options = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    options += ["--num-cpus=4", "--object-store-memory=200000000", "--disable-usage-stats"]
    address = f"http://127.0.0.1:{ports[1]}"
    # Sockets lie in it, whose paths must be short.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", f"--temp-dir={folder}", *options]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        try:
            _wait_for(address, process)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(address: str, process: subprocess.Popen[bytes], timeout_s: float = 90) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            assert process.poll() is None, "the head node ended"
            assert time.monotonic() < end, f"no answer from {address} within {timeout_s} s"
            time.sleep(0.5)
