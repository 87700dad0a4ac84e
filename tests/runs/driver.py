"""The command line in processes that can be killed."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence


class Driver:
    """`rayreel` in a process of its own, forked from one that has imported everything."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["rayreel.runs.render", "rayreel.runs.encode", "rayreel.cli"]
        )
        self.process = context.Process(target=_drive, args=(list(arguments), dict(environment)))
        self.process.start()

    @property
    def ended(self) -> bool:
        return self.process.exitcode is not None

    def end(self) -> int:
        self.process.join(900)
        assert self.process.exitcode is not None, "the driver hangs"
        return self.process.exitcode

    def kill(self) -> bool:
        """Whether there was anything to kill."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


def _drive(arguments: list[str], environment: dict[str, str]) -> None:
    # The server that this was forked from has the environment of whoever started it first.
    os.environ |= environment
    from rayreel.cli import main  # noqa: PLC0415

    sys.argv = ["rayreel", *arguments]
    main()
