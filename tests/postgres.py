"""A real PostgreSQL server for tests, which can be killed and started again over its files."""

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg

from tests.ports import server_ports

READY_S = 60.0
USER = "rayreel"

# PostgreSQL refuses to run as root.
_NOBODY = pwd.getpwnam("nobody")
_OTHER: dict[str, Any] = (
    {"user": _NOBODY.pw_uid, "group": _NOBODY.pw_gid, "extra_groups": []}
    if os.geteuid() == 0
    else {}
)


class PostgresServer:
    """One server. After a kill, what it had committed is still there.

    That holds for the death of the processes, not of the machine: writes lie in the page cache.

    Attributes:
        password: Of its only user.
    """

    def __init__(self) -> None:
        # Not in a folder of pytest's, which others than its user may not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="rayreel-postgres-"))
        self._folder.chmod(0o755)
        self._data = self._folder / "data"
        self._binaries = _binaries(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.password = f"secret-{secrets.token_hex(8)}"

    def start(self) -> None:
        """Start, or start again over the same files, and wait until it answers."""
        if not self._data.exists():
            self._create()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._binaries / "postgres"), "-D", str(self._data)),
                    *("-p", str(self._port), "-c", "listen_addresses=127.0.0.1"),
                    *("-c", "unix_socket_directories=", "-c", "shared_buffers=16MB"),
                    *("-c", "max_connections=60", "-c", "fsync=off"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                **_OTHER,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End all its processes as a crash of the machine would."""
        if self._process is not None:
            server = psutil.Process(self._process.pid)
            # None starts another one meanwhile.
            server.suspend()
            processes = [server, *server.children(recursive=True)]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
            psutil.wait_procs(processes[1:], timeout=10)
            self._process = None

    def stop(self) -> None:
        """End it and remove its files."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        shutil.rmtree(self._folder)

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{USER}:{self.password}@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """SQLAlchemy URL of an empty database."""
        name = f"test_{uuid4().hex[:12]}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self._port,
            user=USER,
            password=self.password,
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        )

    def _create(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        self._data.mkdir(mode=0o700)
        if _OTHER:
            for path in (password, self._data):
                shutil.chown(path, _OTHER["user"], _OTHER["group"])
        subprocess.run(
            [
                *(str(self._binaries / "initdb"), "-D", str(self._data), "-U", USER),
                *("--auth=scram-sha-256", f"--pwfile={password}", "--no-sync"),
                *("--encoding=UTF8", "--locale=C", "--no-instructions"),
            ],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **_OTHER,
        )

    def _wait_until_ready(self) -> None:
        assert self._process is not None, "started before"
        until = time.monotonic() + READY_S
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    tail = "\n".join(self._log.read_text().splitlines()[-20:])
                    raise RuntimeError(f"PostgreSQL did not start:\n{tail}") from error
                time.sleep(0.05)
            else:
                return


def _binaries(folder: Path) -> Path:
    """Where the programs are that the server's user can run, copied to ``folder`` if need be."""
    package = find_spec("pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("no PostgreSQL; expected that of pgserver, a dev dependency")
    installed = Path(package.origin).with_name("pginstall")
    if not _runs(installed):
        # Under a home folder that is closed to others.
        installed = Path(shutil.copytree(installed, folder / "pginstall"))
    return installed / "bin"


def _runs(installed: Path) -> bool:
    command = [str(installed / "bin" / "postgres"), "--version"]
    try:
        subprocess.run(command, check=True, capture_output=True, cwd="/", **_OTHER)
    except PermissionError:
        return False
    return True


def _free_port() -> int:
    while True:
        port = random.SystemRandom().choice(server_ports())
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
