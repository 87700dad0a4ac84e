"""HTML pages of a run, which need nothing from elsewhere."""

import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rayreel.runs.report.outcomes import legible


def render_page(template: str, **values: Any) -> bytes:  # noqa: ANN401 - of each template's own
    """A page from its template.

    Args:
        template: Name in ``templates``.
        **values: What it shows; escaped unless it is markup.
    """
    page = _environment().get_template(template).render(values)
    return legible(page).encode()


def as_script(value: Any) -> str:  # noqa: ANN401 - what JSON can hold
    """JSON that can stand in a script, between its tags too, whatever texts it holds."""
    # ASCII alone: no charset can be mistaken, and no line separators break older parsers.
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("rayreel.runs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
