"""A job that only its names matter of."""

from typing import Any

from rayreel.config.request import RenderRequest
from rayreel.serving.jobs import Job

JOB_ID = "video_" + "a" * 32


def a_job(**fields: Any) -> Job:
    given: dict[str, Any] = {
        "job_id": JOB_ID,
        "owner": "key_1",
        "kind": "video",
        "request": RenderRequest(prompt="a"),
        "asked": {},
        "shape": "s",
        "batch_key": "b",
        "adapters": "",
        "cost_s": 1.0,
        "priority": "normal",
        "due": 0.0,
        "created_at": 0.0,
    }
    return Job(**given | fields)


class NoKeys:
    """A store without keys."""

    def find_key(self, _: str) -> None:
        return None
