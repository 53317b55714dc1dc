"""What a killed training is resumed from: one large file a process, all of the same iteration.

A process alone replaces `resume.safetensors`. Processes of one `torchrun` first write a second file beside it,
wait until all have done so, and then put it in the first one's place: whenever they are killed, there is an
iteration that all of them hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.runs import RunFolder, load_checkpoint, save_checkpoint
from koboshi.stages import ranks

KIND = "resume"


def resume_file(run: RunFolder, rank: int) -> Path:
    """The file of one process; the first one's has no number."""
    return run.resume if rank == 0 else run.resume.with_name(f"{run.resume.stem}.rank{rank}.safetensors")


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.next.safetensors")


def save(run: RunFolder, iteration: int, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Replaces what the run is resumed from; safe against a kill at any moment, of any process."""
    rank, processes = ranks.world()
    path = resume_file(run, rank)
    about = {**meta, "kind": KIND, "iteration": iteration, "processes": processes}
    if processes == 1:
        save_checkpoint(path, state, about)
        return
    save_checkpoint(_next(path), state, about)
    ranks.gather(None)  # once all hold this iteration, nobody needs the one before
    os.replace(_next(path), path)


def load(run: RunFolder, meta: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """State and meta of the newest iteration that all processes hold; None where nothing was saved yet.

    `meta` is what the run is trained with: KoboshiError where it was another, where a file is damaged or
    lost, or where the run had another number of processes. All processes raise it together.
    """
    rank, processes = ranks.world()
    wanted = {**meta, "processes": processes}
    found: dict[int, tuple[dict[str, Tensor], dict[str, Any]]] = {}
    error, path = None, resume_file(run, rank)
    try:
        for each in (path, _next(path)) if processes > 1 else (path,):
            if each.exists():
                tensors, about = _read(each, run, wanted)
                found[int(about["iteration"])] = (tensors, about)
    except KoboshiError as failed:
        error = failed
    ranks.agree(error)
    held = ranks.gather([sorted(found), path.exists()])
    common = set.intersection(*(set(iterations) for iterations, _ in held))
    if common:
        return found[max(common)]
    if any(replaced for _, replaced in held) or run.final.exists():
        lacking = ", ".join(str(r) for r, (iterations, _) in enumerate(held) if not iterations)
        raise KoboshiError(f"{run.path} lacks the state to resume from (of process {lacking}); {_way_out(run)}")
    return None


def _read(path: Path, run: RunFolder, wanted: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors, about = load_checkpoint(path, expect={"kind": KIND})
    except KoboshiError as error:
        raise KoboshiError(f"{error}; the run cannot be resumed; {_way_out(run)}") from error
    for key, mine in wanted.items():
        if key not in ("commit", "kind") and about.get(key) != _as_json(mine):
            raise KoboshiError(
                f"run {run.path} was trained with {key} {about.get(key)!r}, not {_as_json(mine)!r}; "
                f"give the run another name, or the same settings"
            )
    return tensors, about


def _way_out(run: RunFolder) -> str:
    return f"a new run can start from its weights: --load {run.path} --name NEW"


def _as_json(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {str(k): _as_json(v) for k, v in value.items()}
    return [_as_json(v) for v in value] if isinstance(value, list | tuple) else value
