"""The one loop that trains anything: logs, checkpoints, progress, and an exact resume after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.runs import RunFolder, load_checkpoint
from koboshi.stages.progress import progress


class Learner(Protocol):
    """What the loop needs: an iteration at a time, and a state."""

    iteration: int

    def iterate(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def train_loop(
    run: RunFolder,
    learner: Learner,
    done: Callable[[], bool],
    iterations: int,
    steps_an_iteration: int,
    interval: int,
    meta: dict[str, Any],
    title: str,
    show: dict[str, str],
) -> None:
    """Iterates until `done`; a killed run goes on from its newest checkpoint with the same numbers.

    `show`: label -> log key, the figures beside the bar. `iterations` is how many there are at most.
    """
    seconds = _resume(run, learner, meta)
    with progress(title, iterations * steps_an_iteration, start=learner.iteration * steps_an_iteration) as update:
        while not done():
            began = time.monotonic()
            log = learner.iterate()
            elapsed = time.monotonic() - began
            seconds += elapsed
            log |= {"time/steps_per_s": steps_an_iteration / elapsed, "time/seconds": seconds}
            run.log(learner.iteration, log)
            update(learner.iteration * steps_an_iteration, **{k: log[v] for k, v in show.items() if v in log})
            if learner.iteration % interval == 0 and not done():
                run.save(learner.iteration, learner.state_dict(), meta | {"seconds": seconds})
    run.save(learner.iteration, learner.state_dict(), meta | {"seconds": seconds}, final=True)
    run.close()


def _resume(run: RunFolder, learner: Learner, meta: dict[str, Any]) -> float:
    """Loads the newest checkpoint, if any; gives the seconds of training before it."""
    newest = run.latest()
    if newest is None:
        run.truncate_metrics(0)
        return 0.0
    tensors, found = load_checkpoint(newest)
    for key, mine in meta.items():
        if key != "commit" and key in found and found[key] != _plain(mine):
            raise KoboshiError(
                f"run {run.path} was trained with {key} {found.get(key)!r}, not {_plain(mine)!r}; "
                f"give the run another name, or the same settings"
            )
    learner.load_state_dict(tensors)
    run.truncate_metrics(learner.iteration)
    return float(found["seconds"])


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def training_seconds(run: RunFolder) -> float:
    """Seconds that a finished run's iterations took, kills and resumes left out."""
    return float(load_checkpoint(run.checkpoints / "final.safetensors")[1]["seconds"])
