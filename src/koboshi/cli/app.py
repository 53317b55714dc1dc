"""The command line's groups of verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from koboshi.errors import KoboshiError

app = typer.Typer(
    help="Legged robots that keep moving when their joints fail.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
detector_app = typer.Typer(help="Train or judge a fault detector.", no_args_is_help=True)
bench_app = typer.Typer(help="Benchmarks.", no_args_is_help=True)
app.add_typer(detector_app, name="detector")
app.add_typer(bench_app, name="bench")


@app.callback()
def outside(
    context: typer.Context,
    module: Annotated[
        list[str] | None,
        typer.Option(
            help="File or module with TASKS, ROBOTS, FAULTS, ACTORS or AGENTS of your own; may be given several times."
        ),
    ] = None,
) -> None:
    """Legged robots that keep moving when their joints fail."""
    if context.invoked_subcommand == "deploy":
        if module:
            raise KoboshiError("what is deployed needs no --module: all of it is in the exported files")
        return  # without torch, which modules from outside need
    from koboshi import plugins

    plugins.load(module or [])
