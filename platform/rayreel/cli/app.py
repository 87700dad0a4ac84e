"""The command itself, and the options that its parts share."""

import functools
import sys
from collections.abc import Callable
from typing import Annotated, Literal, ParamSpec

import typer

from rayreel.errors import RayreelError

P = ParamSpec("P")

app = typer.Typer(
    name="rayreel",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def exits(command: Callable[P, int]) -> Callable[P, None]:
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


def example(*lines: str) -> str:
    """Text under a command's options, line by line: click would fill the lines like a paragraph."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


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
