"""The verb that serves a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koboshi.cli.app import app
from koboshi.cli.options import RUNS, Overrides, Root


@app.command()
def view(
    controller: Annotated[str, typer.Argument(help="Controller or policy: a file, a pipeline or a run.")],
    overrides: Overrides = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Another controller or policy of the task, to switch to; any number.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8080,
    out: Annotated[Path, typer.Option(help="Folder of the videos that are recorded.")] = Path("runs/view"),
    root: Root = RUNS,
) -> None:
    """Watch a controller live in a browser: command, shove and break the robot, and see who acts (extra view)."""
    from koboshi.stages import live
    from koboshi.stages.folders import find

    others = [find(each, root) for each in against or []]
    page = live.view(find(controller, root), others, overrides or [], out, host, port)
    try:
        print(f"{page.address}  (Ctrl-C ends it)", flush=True)
        page.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if page.recording:
            print("the recording that nobody has ended is not kept", flush=True)
        if page.filming:
            print("finishing the video; Ctrl-C once more drops it", flush=True)
        page.close()
