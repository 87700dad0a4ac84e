"""What an encode job leaves to look at: a page of its dataset, and some of its clips decoded."""

from rayreel.runs.encoding.report.inspection import inspect_dataset
from rayreel.runs.encoding.report.page import write_page

__all__ = ["inspect_dataset", "write_page"]
