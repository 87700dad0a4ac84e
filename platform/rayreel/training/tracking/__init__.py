"""Where the numbers and clips of a run go while it trains."""

from rayreel.training.tracking.metric_log import MetricLog, read_metrics
from rayreel.training.tracking.progress import TrainingProgress
from rayreel.training.tracking.tracker import Status, Tracker, scalars
from rayreel.training.tracking.trackers import Trackers, check_tracking, trackers_for

__all__ = [
    "MetricLog",
    "Status",
    "Tracker",
    "Trackers",
    "TrainingProgress",
    "check_tracking",
    "read_metrics",
    "scalars",
    "trackers_for",
]
