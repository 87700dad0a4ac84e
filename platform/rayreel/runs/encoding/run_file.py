"""``run.json``: how a dataset was made, for whoever finds it later."""

import dataclasses
import json
from typing import Any

from rayreel.runs.encoding.opened import EncodeRun
from rayreel.runs.encoding.tries import Tries
from rayreel.runs.run_file import common_facts


def write_run_file(run: EncodeRun, tries: Tries) -> None:
    """Write it.

    Args:
        run: The job.
        tries: That did its work.
    """
    content: dict[str, Any] = {
        **common_facts(run.spec, run.files),
        "devices": {name: dataclasses.asdict(one) for name, one in tries.workers.devices.items()},
        "seconds": {name: round(seconds, 3) for name, seconds in tries.seconds.items()},
    }
    run.storage.write_bytes("run.json", json.dumps(content, indent=2).encode())
