"""Whatever is killed under load, and whenever: each accepted job ends, and is done once."""

import itertools
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rayreel.data.ledger import Ledger, LedgerEntry
from rayreel.data.storage import Storage
from rayreel.serving.store import JobStore
from tests.cluster.nodes import wait, with_pid
from tests.postgres import PostgresServer
from tests.serving.system.clients import Client
from tests.serving.system.processes import NAME, REPLICAS, ServiceProcess, service

pytestmark = pytest.mark.slow

SPEC = {
    "model": "tiny",
    "placement": "split",
    "workers": {"cpus": 0.25},
    "defaults": {"width": 128, "height": 64, "num_frames": 9, "steps": 2},
    # The same job may well be at work at every kill.
    "queue": {"stale_s": 3, "attempts": 20},
}
# Each alone in its batch, as no other has so many steps: what it becomes is known to the bit.
WITNESSES: list[dict[str, Any]] = [
    {"prompt": f"a lantern, seen {steps} times", "steps": steps, "seed": 7} for steps in (3, 4, 5)
]
RECOVERY_S = 240.0
LAST_S = 400.0


@dataclass
class Chaos:
    """A service under load, of which things die.

    Attributes:
        made: The service.
        client: Who sends the load.
        rng: What decides what dies when.
        database: SQLAlchemy URL of the jobs.
        postgres: Server of the database, if it is one.
    """

    made: ServiceProcess
    client: Client
    rng: random.Random
    database: str
    postgres: PostgresServer | None
    said: list[str] = field(default_factory=list)

    @property
    def strikes(self) -> list[list[str]]:
        """What is killed, in a random order: parts four at a time, the rest by itself.

        Parts do not see which database it is, so they die with one of them.
        """
        parts = [*REPLICAS, "ProxyActor", "ServeController"]
        self.rng.shuffle(parts)
        halves = [parts[::2], parts[1::2]]
        strikes = [["head"], ["database"]] if self.postgres else [*halves, ["everything"]]
        self.rng.shuffle(strikes)
        return strikes

    def strike(self, kinds: list[str]) -> None:
        """Kill some things, and wait until the service does jobs again."""
        start = time.monotonic()
        gone: dict[str, set[int]] = {}
        for kind in kinds:
            time.sleep(self.rng.uniform(0, 2))
            match kind:
                case "database":
                    self.kill_database()
                case "everything":
                    self.made.kill()
                    self.made.start()
                case "head":
                    self.kill_head()
                case _:
                    title = f"ServeReplica:{NAME}:{kind}" if kind in REPLICAS else f"::{kind}"
                    gone[title] = self.kill_process(title)
        for title, pids in gone.items():
            self.wait_for_another(title, pids)
        self.made.wait_until_ready()
        ready_s, ended = time.monotonic() - start, len(self.client.ended)
        wait(lambda: len(self.client.ended) > ended or self.client.faults, "a job", RECOVERY_S)
        works_s = time.monotonic() - start
        said = f"{' and '.join(kinds)}: ready after {ready_s:.1f} s, a job after {works_s:.1f} s"
        self.said.append(said)
        print(said)  # noqa: T201 - shown where the test fails

    def kill_process(self, title: str) -> set[int]:
        """Kill what has a title; which processes that was."""
        pids = self.made.pids(title)
        assert pids, title
        for pid in pids:
            with_pid(pid, signal.SIGKILL)
        return pids

    def wait_for_another(self, title: str, pids: set[int]) -> None:
        wait(lambda: self.made.pids(title) - pids, f"another {title}", RECOVERY_S)

    def kill_database(self) -> None:
        assert self.postgres
        self.postgres.kill()
        time.sleep(self.rng.uniform(0, 3))
        self.postgres.start()

    def kill_head(self) -> None:
        """Without it the rest of a cluster goes within a time that is set, and so the command."""
        self.kill_process("gcs_server")
        wait(lambda: self.made.ended, "an end of the service", RECOVERY_S)
        self.made.kill()
        self.made.start()

    def entries(self) -> dict[str, LedgerEntry]:
        return Ledger(Storage(self.made.output)).read()

    def successes(self) -> Counter[str]:
        """Lines of the ledger that say that a clip is done, by job."""
        files = (self.made.output / "ledger").glob("*.jsonl")
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return Counter(line["item_id"] for line in lines if line["status"] == "done")

    def stored(self) -> dict[str, str]:
        """States of all jobs that the database has."""
        store = JobStore(self.database)
        page = store.list(owner="", limit=1000, after=None, ascending=True)
        store.close()
        return {job.job_id: job.state for job in page.jobs}


@pytest.fixture(params=["sqlite", "postgresql"])
def chaos(request, tmp_path: Path) -> Iterator[Chaos]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    rng = random.Random(seed)
    postgres = None
    spec: dict[str, Any] = SPEC
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres_server")
        spec = {**SPEC, "database": postgres.new_database()}
    with service(tmp_path, spec) as made:
        database = spec.get("database") or f"sqlite:///{made.output}/jobs.sqlite"
        yield Chaos(made, Client(made.url, rng), rng, database, postgres)


def test_whatever_is_killed_each_accepted_job_is_done_once(chaos):
    client = chaos.client
    quiet = [client.send(f"quiet-{n}", body) for n, body in enumerate(WITNESSES)]
    client.wait_for_ends(LAST_S)
    strikes = chaos.strikes
    with client.load(requests()):
        for kinds in strikes:
            chaos.strike(kinds)
    assert not client.faults, chaos.said
    client.wait_for_ends(LAST_S)
    ends = Counter(job["status"] for job in client.jobs.values())
    assert ends == {"completed": len(client.jobs)}, chaos.said
    assert chaos.stored() == dict.fromkeys(client.jobs, "done"), chaos.said
    # With those of its latents.
    lines = Counter([*client.jobs, *(f"{name}-0000" for name in client.jobs)])
    assert chaos.successes() == lines, chaos.said
    assert all(len(ids) == 1 for ids in client.seen.values()), chaos.said
    entries = chaos.entries()
    loud = [client.seen[f"storm-{n}"].copy().pop() for n in range(len(WITNESSES))]
    assert [entries[name].sha256 for name in loud] == [entries[name].sha256 for name in quiet]
    assert not client.faults, chaos.said


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests of the load: those that are known already, and others without end."""
    others = ({"prompt": "a fox", "seed": number} for number in itertools.count())
    bodies: Iterator[dict[str, Any]] = itertools.chain(WITNESSES, others)
    for number, body in enumerate(bodies):
        yield f"storm-{number}", body
