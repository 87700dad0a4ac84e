"""What the documents tell to type works as it is written, against a service."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.system.conftest import Running

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[3]
DOCUMENTS = ("README.md", "serve/README.md")
# Where the documents' service listens, and what stands for a job's name there.
_ADDRESS, _ID = "localhost:8000", "video_ID"
_LIMIT_S = 240


def blocks(document: str, language: str, word: str) -> list[str]:
    """Code of a document in which a word occurs."""
    text = (ROOT / document).read_text("utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for block in found if word in block]


def run(command: list[str], folder: Path) -> str:
    """What a command printed."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """A folder like a checkout, for whatever the commands write."""
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_curl_makes_a_clip(service: Running, reader: Path, document: str):
    said: list[str] = []
    for line in "".join(blocks(document, "bash", f"curl -s {_ADDRESS}")).splitlines():
        names = re.findall(r"video_[0-9a-f]{32}", "".join(said))
        for written, meant in {
            _ADDRESS: service.url.removeprefix("http://"),
            _ID: names[0] if names else _ID,
            "curl ": "curl --fail-with-body ",
        }.items():
            line = line.replace(written, meant)  # noqa: PLW2901 - one after the other
        said.append(run(["bash", "-c", line], reader))
    assert any("event: done" in text for text in said)
    assert (reader / "fox.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_openai_makes_a_clip(service: Running, reader: Path, document: str):
    (code,) = blocks(document, "python", "OpenAI(")
    # It warns that their own service ends.
    run([sys.executable, "-c", code.replace(f"http://{_ADDRESS}", service.url)], reader)
    assert (reader / "fox.mp4").read_bytes()[4:8] == b"ftyp"
