"""Commands for jobs: render, plan, submit, and what follows."""

# ruff: noqa: PLC0415 - see rayreel.cli

import sys
from typing import Annotated, Literal

import typer

from rayreel.cli.app import (
    Address,
    Budget,
    Job,
    Model,
    Output,
    Retry,
    Set,
    Spec,
    app,
    example,
    exits,
)


@app.command(
    "render",
    epilog=example("rayreel render manifests/demo.yaml --set defaults.steps=4 -o runs/quick"),
)
@exits
def render_command(
    spec: Spec,
    output: Output = None,
    set_: Set = None,
    model: Model = None,
    retry: Retry = "none",
    error_budget: Budget = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, render nothing")
    ] = False,
) -> int:
    """Render a prompt list to MP4 files with sound. Run it again to finish what was interrupted.

    Exit codes: 0 every row has a clip, 1 some failed, 2 something is wrong, 3 too many failed.
    """
    from rayreel.requests.spec import read_render_spec
    from rayreel.runs.opened import plan
    from rayreel.runs.render import render

    job = read_render_spec(spec, set_ or (), output, model)
    if error_budget is not None:
        job = job.model_copy(update={"error_budget": error_budget})
    if dry_run:
        _, rows = plan(job)
        print(f"{len(rows)} rows, {rows.num_clips} clips: all of them are valid")
        return 0
    summary = render(job, retry=retry)
    print(f"{summary}\n{summary.gallery}")
    return summary.exit_code


@app.command(
    "plan",
    epilog=example(
        "rayreel plan manifests/demo.yaml", "rayreel plan manifests/demo.yaml --no-measure"
    ),
)
@exits
def plan_command(
    spec: Spec,
    output: Output = None,
    set_: Set = None,
    model: Model = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="render a clip of each shape of unknown cost first; it counts as finished",
        ),
    ] = True,
    costs: Annotated[
        str | None,
        typer.Option("--costs", metavar="RUN", help="another run whose measured costs count too"),
    ] = None,
) -> int:
    """Tell what a job will take before it starts.

    Checks every row, and prints actors, throughput, time, GPU-hours and storage.
    """
    from rayreel.requests.spec import read_render_spec
    from rayreel.runs.plan import plan_job

    print(plan_job(read_render_spec(spec, set_ or (), output, model), measure=measure, costs=costs))
    return 0


@app.command(
    "submit",
    epilog=example(
        "rayreel submit /shared/job.yaml -o s3://bucket/runs/first",
        "rayreel submit manifests/demo.yaml -o /shared/runs/demo --working-dir . --detach",
        "rayreel submit /shared/clips.yaml -o s3://bucket/datasets/clips --job encode",
    ),
)
@exits
def submit_command(  # noqa: PLR0913, PLR0917 - options, which are given by name
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="spec or prompt list, as the cluster sees it")
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="DIR", help="run directory that all nodes see"),
    ],
    job: Annotated[
        Literal["render", "encode", "train"], typer.Option("--job", help="what the spec is of")
    ] = "render",
    set_: Set = None,
    model: Model = None,
    retry: Retry = "none",
    error_budget: Budget = None,
    address: Address = None,
    working_dir: Annotated[
        str | None,
        typer.Option("--working-dir", metavar="DIR", help="folder to upload, with spec and list"),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="print the job's id, and do not follow its log")
    ] = False,
) -> int:
    """Run a job on a running cluster, and follow the log. The exit code is that of the job."""
    from rayreel.cluster.jobs import follow, submit

    settings = [part for setting in set_ or () for part in ("--set", setting)]
    settings += ["--model", model] if model else []
    settings += ["--error-budget", str(error_budget)] if error_budget is not None else []
    settings += ["--retry", retry] if retry != "none" else []
    job_id = submit(
        [job, spec, "--output", output, *settings],
        output=output,
        address=address,
        working_dir=working_dir,
    )
    print(job_id, flush=True)
    return 0 if detach else follow(job_id, out=sys.stdout, err=sys.stderr, address=address)


@app.command("attach", epilog=example("rayreel attach rayreel-0f1e2d3c-1"))
@exits
def attach_command(job: Job, address: Address = None) -> int:
    """Follow the log of a submitted job from its start. The exit code is that of the job."""
    from rayreel.cluster.jobs import follow

    return follow(job, out=sys.stdout, err=sys.stderr, address=address)


@app.command("stop", epilog=example("rayreel stop rayreel-0f1e2d3c-1"))
@exits
def stop_command(job: Job, address: Address = None) -> int:
    """End a submitted job. What is finished is kept, and submitting it again goes on from there."""
    from rayreel.cluster.jobs import stop

    print("stopped" if stop(job, address=address) else "had ended already")
    return 0


@app.command("view", epilog=example("rayreel view runs/demo", "rayreel view s3://bucket/runs/a"))
@exits
def view_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="run directory: a folder or a URI")],
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="on this machine; 0 takes a free one")
    ] = 0,
) -> int:
    """Serve a run to a browser on this machine.

    The run may lie on disk or in an object store. Prints the address; Ctrl-C ends it.
    """
    from rayreel.runs.view import serve_run

    serve_run(run, port, print)
    return 0
