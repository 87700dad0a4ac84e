"""Whatever is killed, and whenever: a rerun ends with every clip, each made once."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from tests.cluster.nodes import Cluster, cluster, with_pid
from tests.runs.conftest import DEFAULTS
from tests.runs.driver import Driver
from tests.s3 import S3Server

pytestmark = pytest.mark.slow

# One of each kind.
KILLS = 5
ROWS_A_ROUND = 3
SIZES: list[dict[str, Any]] = [{}, {"width": 128}, {"num_frames": 17}, {"steps": 12}]
POOLS = {
    "placement": "split",
    "workers": {"cpus": 0.5},
    "defaults": {**DEFAULTS, "pipeline": "one_stage"},
    # The same clip may well be at work when its worker is killed, time and again.
    "attempts": 6,
}


@dataclass
class Chaos:
    """A job whose list grows, on a cluster where things die.

    Attributes:
        folder: Of spec and list.
        output: The run directory.
        nodes: The cluster.
        s3: Server of the run directory.
        rng: What decides when.
    """

    folder: Path
    output: str
    nodes: Cluster
    s3: S3Server
    rng: random.Random
    rows: list[dict[str, Any]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def kinds(self) -> dict[str, Callable[[Driver], bool]]:
        """What can be killed; each says whether there was anything to kill."""
        return {
            "driver": Driver.kill,
            "denoise": lambda driver: self.kill_worker(driver, "stage1"),
            "decode": lambda driver: self.kill_worker(driver, "decode"),
            "node": lambda _: self.kill_node(),
            "storage": lambda _: self.kill_storage(),
        }

    def grow(self) -> None:
        for _ in range(ROWS_A_ROUND):
            number = len(self.rows)
            prompt = f"A lantern in scene {number // 24}."
            size = self.rng.choice(SIZES)
            self.rows.append({"id": f"row{number}", "prompt": prompt, "seed": number, **size})
        lines = "".join(f"{json.dumps(row)}\n" for row in self.rows)
        (self.folder / "list.jsonl").write_text(lines)
        spec = {"prompts": "list.jsonl", **POOLS}
        (self.folder / "spec.yaml").write_text(yaml.safe_dump(spec))

    def drive(self) -> Driver:
        environment = {
            **self.s3.environment,
            "RAY_ADDRESS": self.nodes.address,
            "RAY_AUTH_MODE": "disabled",
        }
        return Driver(["render", str(self.folder / "spec.yaml"), "-o", self.output], environment)

    def kill_worker(self, driver: Driver, stage: str) -> bool:
        """At some moment of its life, which is shorter than the driver's."""
        while not driver.ended:
            if self.nodes.workers(f"({stage}"):
                time.sleep(self.rng.uniform(0, 3))
                if found := self.nodes.workers(f"({stage}"):
                    with_pid(self.rng.choice(found).pid, signal.SIGKILL)
                    return True
            time.sleep(0.1)
        return False

    def kill_node(self) -> bool:
        node = self.nodes.nodes[1]
        node.kill()
        node.start()
        return True

    def kill_storage(self) -> bool:
        self.s3.kill()
        time.sleep(self.rng.uniform(0, 2))
        self.s3.start()
        return True

    def written(self) -> dict[str, tuple[str, bytes]]:
        """When every clip was written, and what it holds."""
        storage = Storage(self.output)
        found = {}
        for name in storage.names("videos"):
            file_system, path = fsspec.url_to_fs(storage.join(name), use_listings_cache=False)
            moment = str(file_system.modified(path))
            found[name] = moment, storage.read_bytes(name)
        return found

    def successes(self) -> Counter[str]:
        """Lines of the ledger that say that a clip is done, by item."""
        storage = Storage(self.output)
        contents = storage.read_many(storage.names("ledger")).values()
        lines = [json.loads(line) for data in contents for line in data.splitlines()]
        return Counter(line["item_id"] for line in lines if line["status"] == "done")


@pytest.fixture
def chaos(s3_server, tmp_path) -> Iterator[Chaos]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    rng = random.Random(seed)
    output = f"{s3_server.url}/kills-{seed}"
    with cluster(3, 3, environment=s3_server.environment) as nodes:
        yield Chaos(tmp_path, output, nodes, s3_server, rng)


def test_after_any_kill_a_rerun_has_every_clip_once(chaos):
    round_s = 12.0
    while chaos.kills.total() < KILLS:
        before = chaos.written()
        chaos.grow()
        kind = min(chaos.kinds, key=lambda one: (chaos.kills[one], chaos.rng.random()))
        start, driver = time.monotonic(), chaos.drive()
        moment = start + chaos.rng.uniform(0, 0.9 * round_s)
        driver.process.join(moment - time.monotonic())
        killed = not driver.ended and chaos.kinds[kind](driver)
        chaos.kills[kind] += killed
        driver.end()
        if not killed:
            round_s = time.monotonic() - start
        said = f"{kind} after {moment - start:.1f} s, kill {chaos.kills.total()}"
        print(said)  # noqa: T201 - as above
        assert chaos.drive().end() == 0, said
        after, successes = chaos.written(), chaos.successes()
        assert len(after) == len(chaos.rows), said
        assert successes == Counter(name_of(path) for path in after), said
        assert {name: after[name] for name in before} == before, said
        assert not Ledger(Storage(chaos.output)).read() - successes.keys(), said


def name_of(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".mp4")
