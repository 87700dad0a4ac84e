"""The ``rayreel`` command: parses, calls, prints.

Exit codes: 0 all done, 1 some items failed and all others are done, 2 bad input or environment, 3
the error budget was spent.

Commands import what they run themselves: PyTorch, transformers and Ray take ten seconds, and help
and mistyped options shall not wait for them.
"""

# ruff: noqa: PLC0415 - see above

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, ParamSpec

import typer
import yaml

from rayreel.errors import RayreelError, SpecError
from rayreel.logs import setup_logging

P = ParamSpec("P")

app = typer.Typer(
    name="rayreel",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _exits(command: Callable[P, int]) -> Callable[P, None]:
    """Turn the number that a command returns into its exit code, and our errors into exit 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except RayreelError as error:
            print(f"rayreel: {error}", file=sys.stderr)
            code = 2
        except KeyboardInterrupt:
            print("rayreel: interrupted; the same command goes on from here", file=sys.stderr)
            code = 130
        raise typer.Exit(code)

    return run


def _example(*lines: str) -> str:
    """Text under a command's options, line by line: click would fill the lines like a paragraph."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rayreel {importlib.metadata.version('rayreel')}")
        raise typer.Exit


Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="YAML spec, or a JSONL, CSV or Parquet prompt list")
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="DIR", help="run directory: a folder or a URI"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="a field that wins over the spec; repeatable"),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="folder of weight files, model spec (YAML), or tiny"
    ),
]
Job = Annotated[
    str, typer.Argument(metavar="JOB", help="id that was printed when it was submitted")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="the cluster's dashboard; by default RAY_API_SERVER_ADDRESS, or port 8265 here",
    ),
]


def _share(text: str) -> float:
    """A share of a whole: ``5%`` or ``0.05``."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is no share; expected 0% to 100%, or 0 to 1")
    return share


Retry = Annotated[
    Literal["none", "failed"],
    typer.Option("--retry", help="failed: try the clips again that have failed, and no others"),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--error-budget",
        metavar="SHARE",
        parser=_share,
        help="stop when more of the clips have failed than this, such as 5% or 0.05",
    ),
]


@app.callback(epilog=_example("rayreel render manifests/demo.yaml"))
def options(
    version: Annotated[  # noqa: ARG001 - its callback has answered
        bool,
        typer.Option("--version", help="show the version", callback=_print_version, is_eager=True),
    ] = False,
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        typer.Option("--log-level", help="least serious lines that are logged"),
    ] = "WARNING",
    log_json: Annotated[
        bool, typer.Option("--log-json", help="log lines as JSON, with run and items")
    ] = False,
) -> None:
    """LTX-2 audio-video diffusion on a Ray cluster."""
    setup_logging(log_level, json=log_json)


@app.command(
    "render",
    epilog=_example("rayreel render manifests/demo.yaml --set defaults.steps=4 -o runs/quick"),
)
@_exits
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
    from rayreel.runs.opened import plan
    from rayreel.runs.render import render
    from rayreel.runs.spec import read_render_spec

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
    epilog=_example(
        "rayreel plan manifests/demo.yaml", "rayreel plan manifests/demo.yaml --no-measure"
    ),
)
@_exits
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
    from rayreel.runs.plan import plan_job
    from rayreel.runs.spec import read_render_spec

    print(plan_job(read_render_spec(spec, set_ or (), output, model), measure=measure, costs=costs))
    return 0


@app.command(
    "submit",
    epilog=_example(
        "rayreel submit /shared/job.yaml -o s3://bucket/runs/first",
        "rayreel submit manifests/demo.yaml -o /shared/runs/demo --working-dir . --detach",
    ),
)
@_exits
def submit_command(  # noqa: PLR0913, PLR0917 - options, which are given by name
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="spec or prompt list, as the cluster sees it")
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="DIR", help="run directory that all nodes see"),
    ],
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
    """Render on a running cluster, and follow the log. The exit code is that of the job."""
    from rayreel.cluster.jobs import follow, submit

    settings = [part for setting in set_ or () for part in ("--set", setting)]
    settings += ["--model", model] if model else []
    settings += ["--error-budget", str(error_budget)] if error_budget is not None else []
    job = submit(
        ["render", spec, "--output", output, "--retry", retry, *settings],
        output=output,
        address=address,
        working_dir=working_dir,
    )
    print(job, flush=True)
    return 0 if detach else follow(job, out=sys.stdout, err=sys.stderr, address=address)


@app.command("attach", epilog=_example("rayreel attach rayreel-0f1e2d3c-1"))
@_exits
def attach_command(job: Job, address: Address = None) -> int:
    """Follow the log of a submitted job from its start. The exit code is that of the job."""
    from rayreel.cluster.jobs import follow

    return follow(job, out=sys.stdout, err=sys.stderr, address=address)


@app.command("stop", epilog=_example("rayreel stop rayreel-0f1e2d3c-1"))
@_exits
def stop_command(job: Job, address: Address = None) -> int:
    """End a submitted job. What is finished is kept, and submitting it again goes on from there."""
    from rayreel.cluster.jobs import stop

    print("stopped" if stop(job, address=address) else "had ended already")
    return 0


@app.command("view", epilog=_example("rayreel view runs/demo", "rayreel view s3://bucket/runs/a"))
@_exits
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


@app.command(
    "tiny", epilog=_example("rayreel tiny set", "rayreel render manifests/demo.jsonl --model set")
)
@_exits
def tiny_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where to write the files")],
    generation: Annotated[
        Literal["2.0", "2.3"], typer.Option("--generation", help="architecture of the networks")
    ] = "2.0",
) -> int:
    """Write the tiny model in the layout of the official files.

    Prints the part of a spec that names them.
    """
    from rayreel.checkpoints.tiny import write_tiny

    try:
        model = write_tiny(folder.absolute(), generation)
    except OSError as error:
        raise SpecError(f"cannot write the tiny model to {folder}: {error}") from error
    section = {"model": model.model_dump(exclude_defaults=True)}
    print(yaml.safe_dump(section, sort_keys=False), end="")
    return 0


@app.command("inspect", epilog=_example("rayreel inspect ltx-2-19b-dev.safetensors"))
@_exits
def inspect_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="safetensors file")],
) -> int:
    """Say what a weight file holds, from its header alone."""
    from rayreel.checkpoints.inspect import describe

    print(describe(file))
    return 0


@app.command(
    "doctor",
    epilog=_example(
        "rayreel doctor --model /weights/ltx-2",
        "rayreel doctor --model manifests/models/ltx-2-19b-dev.yaml --set model.folder=/weights",
    ),
)
@_exits
def doctor_command(
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="folder of weight files, model spec (YAML), or tiny"
        ),
    ] = "tiny",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="a field that wins over the spec; repeatable"
        ),
    ] = None,
) -> int:
    """Check a set of weight files without loading it: is it complete, and can it run here?

    Exit codes: 0 yes, 1 this machine is too small for it, 2 something is wrong with the set.
    """
    from rayreel.runs.doctor import diagnose_model

    diagnosis = diagnose_model(model, set_ or ())
    print(diagnosis)
    return diagnosis.exit_code


def main() -> None:
    """Entry point of the console command."""
    app()
