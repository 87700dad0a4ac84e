"""Plan before spending: a list is checked, its costs are measured, and the whole is told."""

from itertools import islice

from rayreel.cluster.connect import capacity, connected
from rayreel.config.jobs import RenderSpec
from rayreel.data.storage import Storage
from rayreel.requests.costs import CostBook
from rayreel.requests.shapes import shape_name
from rayreel.runs.left import Left
from rayreel.runs.opened import open_run
from rayreel.runs.planning.make import count_shapes, unmeasured
from rayreel.runs.planning.table import as_table
from rayreel.runs.render import plan_run, render_left

# Rows among which an example of each shape is looked for.
_MOST_ROWS = 100_000


def plan_job(spec: RenderSpec, *, measure: bool = True, costs: str | None = None) -> str:
    """The plan of a job as a table, and as ``plan.json`` in its run directory.

    Args:
        spec: The job; its paths are absolute.
        measure: Whether a clip of each frequent shape is rendered first, where nothing is known of
            its costs. These clips are finished then: the job does not render them again.
        costs: Another run whose costs count too.

    Raises:
        SpecError: If the spec or a row is wrong.
        CheckpointError: If weight files are.
        ClusterError: If there is no cluster, or it cannot hold the job.
    """
    with open_run(spec) as run, connected():
        if costs is not None:
            book = CostBook.load(run.store).merged(CostBook.load(Storage(costs)))
            book.save(run.store)
        left = run.left()
        if not left.clips:
            return f"{len(run.rows)} rows, {run.rows.num_clips} clips: nothing is left to render"
        plan, cluster = plan_run(run, left, capacity())
        shapes = count_shapes(left.shapes(), run.files)
        names = {
            shape.name for shape in unmeasured(CostBook.load(run.store), shapes, cluster.labels)
        }
        if measure and names:
            render_left(run, _examples(left, names))
            left = run.left()
            if left.clips:
                plan, _ = plan_run(run, left, capacity())
        plan.save(run.storage)
        return as_table(plan)


def _examples(left: Left, names: set[str]) -> Left:
    """One clip of each of some shapes, as far as they are found soon."""
    found: dict[str, str] = {}
    for row in islice(left.rows(), _MOST_ROWS):
        name = shape_name(row.request)
        if name in names:
            found.setdefault(name, row.item_id)
        if len(found) == len(names):
            break
    return left.only(found.values())
