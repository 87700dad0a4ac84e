"""Commands for services: serve, and the keys of their clients."""

# ruff: noqa: PLC0415 - see rayreel.cli

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from rayreel.cli.app import Model, Output, Set, app, example, exits

if TYPE_CHECKING:
    from rayreel.serving.store import JobStore

ServiceSpec = Annotated[
    str | None,
    typer.Argument(metavar="[SPEC]", help="YAML spec; by default the tiny model, in runs/serve"),
]
Database = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="of the jobs; by default what the spec says"),
]
Of = Annotated[str | None, typer.Option("--spec", metavar="SPEC", help="of the service; YAML")]
KeyName = Annotated[str, typer.Argument(metavar="NAME", help="whose key it is")]

keys = typer.Typer(
    help="API keys of a service.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=example("rayreel keys add alice --spec manifests/serving/tiny.yaml"),
)
app.add_typer(keys, name="keys")


@app.command(
    "serve",
    epilog=example(
        "rayreel serve",
        "rayreel serve manifests/serving/tiny.yaml --port 8000 --set placement=split",
    ),
)
@exits
def serve_command(
    spec: ServiceSpec = None,
    output: Output = None,
    set_: Set = None,
    model: Model = None,
    host: Annotated[str, typer.Option("--host", help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="port to listen on")] = 8000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, start nothing")
    ] = False,
) -> int:
    """Make clips on request, by an HTTP API and a page to try it; until it is interrupted.

    Accepted jobs are in a database: a service that is started again goes on with them.
    """
    from rayreel.requests.models import rendering_model
    from rayreel.requests.spec import read_serve_spec
    from rayreel.serving.run import serve_until_stopped

    service = read_serve_spec(spec, set_ or (), output, model)
    if dry_run:
        rendering_model(service.model)
        print("the spec is valid, and its weights are there")
        return 0
    print(f"starting {service.name}; this takes a moment", flush=True)
    serve_until_stopped(
        service,
        host=host,
        port=port,
        ready=lambda url: print(
            f"{url}       a page to try it\n{url}/docs  the API\nCtrl+C stops it", flush=True
        ),
    )
    return 0


@keys.command("add", epilog=example("rayreel keys add alice --spec manifests/serving/tiny.yaml"))
@exits
def add_key_command(name: KeyName, spec: Of = None, database: Database = None) -> int:
    """Make a key; it is shown this once, and only its hash is kept."""
    with _store(spec, database) as store:
        _, secret = store.add_key(name)
    print(secret)
    return 0


@keys.command("list", epilog=example("rayreel keys list"))
@exits
def list_keys_command(spec: Of = None, database: Database = None) -> int:
    """Show whose keys there are."""
    with _store(spec, database) as store:
        found = store.keys()
    for key in found:
        state = "revoked" if key.revoked_at is not None else "good"
        since = datetime.fromtimestamp(key.created_at, UTC)
        print(f"{key.name}  {state}  since {since:%Y-%m-%d %H:%M} UTC")
    print(f"{len(found)} keys")
    return 0


@keys.command("revoke", epilog=example("rayreel keys revoke alice"))
@exits
def revoke_key_command(name: KeyName, spec: Of = None, database: Database = None) -> int:
    """Take a key back; within seconds nobody can use it."""
    from rayreel.errors import SpecError

    with _store(spec, database) as store:
        if not store.revoke_key(name):
            found = store.keys()
            known = ", ".join(key.name for key in found if key.revoked_at is None)
            raise SpecError(f"no good key is called {name!r}; there are: {known or 'none'}")
    print(f"{name} is revoked")
    return 0


@contextmanager
def _store(spec: str | None, database: str | None) -> "Iterator[JobStore]":
    from rayreel.requests.spec import read_serve_spec
    from rayreel.serving.store import JobStore

    store = JobStore(database or read_serve_spec(spec).database_url)
    try:
        store.migrate()
        yield store
    finally:
        store.close()
