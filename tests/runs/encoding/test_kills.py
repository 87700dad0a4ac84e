"""Whatever is killed, and whenever: a rerun ends with the same shards, to the byte."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import pytest
import yaml

from rayreel.data.storage import Storage
from rayreel.requests.spec import read_encode_spec
from rayreel.runs.encode import encode
from tests.cluster.nodes import Cluster, cluster, with_pid
from tests.corpus import corpus_spec_values
from tests.runs.driver import Driver
from tests.runs.encoding.conftest import InProcess
from tests.s3 import S3Server

pytestmark = pytest.mark.slow

KILLS = 2
ROUND_S = 20.0
# The same item may well be at work when its worker is killed, time and again.
POOLS = {"workers": {"replicas": 2, "cpus": 0.5, "batch_size": 3}, "attempts": 6}


@dataclass
class Chaos:
    """A job on a cluster where things die.

    Attributes:
        spec: Of the job.
        outputs: Where datasets go by turns: to object storage and to a disk.
        nodes: The cluster.
        s3: Server of the clips and of one output.
        rng: What decides when.
    """

    spec: Path
    outputs: tuple[str, str]
    nodes: Cluster
    s3: S3Server
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def kinds(self) -> dict[str, Callable[[Driver], bool]]:
        """What can be killed; each says whether there was anything to kill."""
        return {
            "driver": Driver.kill,
            "worker": self.kill_worker,
            "node": self.kill_node,
            "storage": self.kill_storage,
        }

    def drive(self, output: str) -> Driver:
        environment = {
            **self.s3.environment,
            "RAY_ADDRESS": self.nodes.address,
            "RAY_AUTH_MODE": "disabled",
        }
        return Driver(["encode", str(self.spec), "-o", output], environment)

    def kill_worker(self, driver: Driver) -> bool:
        while not driver.ended:
            if found := self.nodes.workers("(MapBatches"):
                with_pid(self.rng.choice(found).pid, signal.SIGKILL)
                return True
            time.sleep(0.1)
        return False

    def kill_node(self, _: Driver) -> bool:
        node = self.nodes.nodes[1]
        node.kill()
        node.start()
        return True

    def kill_storage(self, _: Driver) -> bool:
        self.s3.kill()
        time.sleep(self.rng.uniform(0, 2))
        self.s3.start()
        return True


def shards_of(output: str) -> dict[str, bytes]:
    storage = Storage(output)
    names = [*storage.names("shards"), "dataset.json"]
    return storage.read_many(names)


@pytest.fixture
def chaos(s3_server, corpus, tmp_path) -> Iterator[Chaos]:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    stored = f"{s3_server.url}/encode-kills-{seed}"
    values = {**corpus_spec_values(corpus[0], Path("out")), **POOLS, "shard_samples": 10}
    values["dataset"] = f"{stored}/corpus/list.jsonl"
    file_system, path = fsspec.url_to_fs(f"{stored}/corpus")
    file_system.put(f"{corpus[0]}/", f"{path}/", recursive=True)
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(values))
    with cluster(3, 3, environment=s3_server.environment) as nodes:
        yield Chaos(spec, (stored, str(tmp_path)), nodes, s3_server, random.Random(seed))


def test_after_any_kills_the_shards_are_those_of_a_quiet_run(chaos, tmp_path):
    quiet = str(tmp_path / "quiet")
    encode(read_encode_spec(str(chaos.spec), (), quiet), workers=InProcess)
    expected = shards_of(quiet)
    assert len(json.loads(expected["dataset.json"])["shards"]) > 3
    said: list[str] = []
    while chaos.kills.total() < KILLS:
        kill = chaos.kills.total()
        output = f"{chaos.outputs[kill % 2]}/dataset-{kill}"
        while not finished(chaos, output, said):
            pass
        assert shards_of(output) == expected, said


def finished(chaos: Chaos, output: str, said: list[str]) -> bool:
    """Whether a job came to its end before anything was killed."""
    kind = min(chaos.kinds, key=lambda one: (chaos.kills[one], chaos.rng.random()))
    after_s = chaos.rng.uniform(0, ROUND_S)
    driver = chaos.drive(output)
    driver.process.join(after_s)
    killed = not driver.ended and chaos.kinds[kind](driver)
    chaos.kills[kind] += killed
    said.append(f"{kind} after {after_s:.1f} s: {'killed' if killed else 'had ended'}")
    print(said[-1])  # noqa: T201 - as above
    code = driver.end()
    assert code in ({1, -signal.SIGKILL} if kind == "driver" else {1}), said
    return code == 1
