"""A vectors folder without a file has no tests for it, rather than skipped ones."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that were parametrised with no case at all."""
    empty = [
        item
        for item in items
        for mark in item.iter_markers("skip")
        if mark.kwargs.get("reason", "").startswith("got empty parameter set")
    ]
    config.hook.pytest_deselected(items=empty)
    items[:] = [item for item in items if item not in empty]
