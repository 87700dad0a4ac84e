"""Jobs and API keys in a database, which is the queue: nothing of it is held elsewhere."""

from rayreel.serving.store.job_store import JobStore
from rayreel.serving.store.records import ApiKey, Beats, JobPage, KeyReused, QueueFull, Totals

__all__ = ["ApiKey", "Beats", "JobPage", "JobStore", "KeyReused", "QueueFull", "Totals"]
