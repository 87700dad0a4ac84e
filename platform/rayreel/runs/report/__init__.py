"""What a run leaves to look at: a table, a gallery, a report, and a list of what failed."""

from rayreel.runs.report.write import write_report

__all__ = ["write_report"]
