"""PPO of rsl_rl and of skrl beside ours, in the same environment with the same sizes: seconds until a policy walks.

`python benchmarks/peers.py [--task go2-flat] [--seed 1 --seed 2 …] [--peer koboshi …]` (extra `bench`). A seed is a
file of its own, so it can be made in parts; those that are there already are not made again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from koboshi import config, runs
from koboshi.cli import run
from koboshi.cli.options import Overrides, task_named
from koboshi.errors import KoboshiError
from koboshi.stages import peers
from koboshi.stages.progress import console, progress
from koboshi.tasks import TaskCfg
from koboshi.view.peer_plots import race_curves


def main(
    overrides: Overrides = None,
    task: Annotated[str, typer.Option(help="Which environment; learned by PPO of the usual sizes.")] = "go2-flat",
    seed: Annotated[list[int] | None, typer.Option(help="Several times; 1, 2, 3.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help=f"Several times; {', '.join(peers.PEERS)}.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the parts and of their table.")] = Path("benchmarks/peers"),
) -> None:
    """Races the learners and shows the table of all parts."""
    chosen, names = task_named(task, overrides), tuple(dict.fromkeys(peer or peers.PEERS))
    peers.check(chosen, names)
    parts = [_part(chosen, names, each, out / task / f"seed-{each}.json") for each in dict.fromkeys(seed or (1, 2, 3))]
    race_curves(parts, out / task / "peers.png")
    _show(task, peers.table(parts))


def _part(task: TaskCfg, names: tuple[str, ...], seed: int, file: Path) -> dict[str, Any]:
    """A seed's race, from its file where it was run with the same settings and peers; KoboshiError with others."""
    made_with = {"task": config.to_dict(task), "peers": list(names)}
    if file.exists():
        known = runs.read_json(file)
        if known["made_with"] != json.loads(json.dumps(made_with)):
            raise KoboshiError(f"{file} was raced with other settings or peers; give another --out")
        return dict(known["found"])
    with progress(f"race {task.name}, seed {seed}", task.agent.trainer.iterations, "iterations") as update:
        found = peers.race(task, names, seed, report=lambda n, figures: update(n, **figures))
    runs.write_json(file, {"seed": seed, "commit": runs.git_commit(), "found": found, "made_with": made_with})
    return found


def _show(task: str, rows: dict[str, dict[str, object]]) -> None:
    table = Table(title=f"{task}: until v_x RMSE ≤ {peers.VX_RMSE} m/s and nobody falls")
    for name in ("learner", "s", "M steps", "times koboshi's", "steps/s"):
        table.add_column(name, justify="left" if name == "learner" else "right")
    for name, row in rows.items():
        seconds = ", ".join("never" if s is None else f"{s:.0f}" for s in row["walks_s"])  # type: ignore[attr-defined]
        steps = ", ".join("–" if s is None else f"{s / 1e6:.2f}" for s in row["walks_steps"])  # type: ignore[attr-defined]
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        table.add_row(name, seconds, steps, ratio, f"{row['steps_per_s']:,.0f}")
    console.print(table)


if __name__ == "__main__":
    run(lambda: typer.run(main))
