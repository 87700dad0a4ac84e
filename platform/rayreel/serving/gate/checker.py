"""Looks at files of strangers in a process of its own, which dies with whatever they do to it."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rayreel.config.serving import UploadSpec
from rayreel.errors import MediaError
from rayreel.media.inspection import Inspected, Limits

logger = logging.getLogger(__name__)

_AT_ONCE = 2


class Checker:
    """Checks files, few at a time.

    Attributes:
        limits: What they may be like.
    """

    def __init__(self, limits: UploadSpec) -> None:
        self.limits = limits
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def check(self, path: Path) -> Inspected:
        """Tell a file by its content, once all of it was decoded.

        Args:
            path: A local file.

        Raises:
            MediaError: If it is refused; says why.
            RuntimeError: If it cannot be looked at, for no fault of the file.
        """
        async with self._turns:
            return await asyncio.to_thread(self._look, path)

    def _look(self, path: Path) -> Inspected:
        limits = Limits(
            max_pixels=self.limits.max_pixels,
            max_frames=self.limits.max_frames,
            max_video_pixels=self.limits.max_video_pixels,
            max_seconds=self.limits.max_seconds,
        )
        said_limits = (json.dumps(asdict(limits)), str(self.limits.check_s))
        command = [sys.executable, "-P", "-m", "rayreel.media.inspection", str(path)]
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
            try:
                code = subprocess.run(
                    [*command, *said_limits],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=wrong,
                    cwd="/",
                    env=_environment(),
                    timeout=self.limits.check_s,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise MediaError(
                    f"looking at the file takes longer than {self.limits.check_s:g} s"
                ) from error
            if code < 0:
                raise MediaError(f"the file's decoder crashed (signal {-code})")
            said.seek(0)
            answer = said.read()
            if code or not answer:
                wrong.seek(0)
                said_last = wrong.read()[-2000:].decode(errors="replace")
                logger.error("looking at a file failed: %s", said_last)
                raise RuntimeError(f"the process that looks at files ended with {code}")
        answered = json.loads(answer)
        if "found" not in answered:
            raise MediaError(str(answered["refused"]))
        return Inspected(**answered["found"])


def _environment() -> dict[str, str]:
    """What the process needs to find its modules; no secrets of the service."""
    found = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    # Each of a decoder's threads may set aside 64 MiB of addresses otherwise.
    threads = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return found | threads | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
