"""The one loop that trains anything: logs, checkpoints, progress, and an exact resume after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from torch import Tensor

from koboshi.algos.learner import Learner
from koboshi.devices import local_device
from koboshi.errors import KoboshiError
from koboshi.runs import RunFolder, load_checkpoint
from koboshi.stages import ranks, resume
from koboshi.stages.progress import progress

LEARNT = ("loss/", "estimate/")
"""What a log calls the figures of learning; a missing figure of episodes may be NaN for good reasons."""


def check_devices(*names: str) -> None:
    """KoboshiError for the first device that this process lacks; asked before anything is built."""
    for name in names:
        local_device(name)


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
    """Iterates until `done`; a killed run is resumed from its newest saved state with the same numbers.

    `show`: label -> log key, the figures beside the bar. `iterations` is how many there are at most. Of several
    processes the first one alone logs and writes weights.
    """
    first = ranks.is_first()
    seconds = _resume(run, learner, meta)
    if done() and run.final.exists():
        return  # finished before: its files say by which code
    with progress(title, iterations * steps_an_iteration, start=learner.iteration * steps_an_iteration) as update:
        while not done():
            began = time.monotonic()
            log = learner.iterate()
            _refuse_nan(run, learner.iteration, log)
            elapsed = time.monotonic() - began
            seconds += elapsed
            if first:
                log |= {"time/steps_per_s": steps_an_iteration / elapsed, "time/seconds": seconds}
                run.log(learner.iteration, log)
                figures = {label: log[key] for label, key in show.items() if key in log}
                update(learner.iteration * steps_an_iteration, **figures)
            if learner.iteration % interval == 0 and not done():
                _save(run, learner, meta | {"seconds": seconds})
    _save(run, learner, meta | {"seconds": seconds})
    if first:
        run.save_final(learner.iteration, weights(learner), meta | {"seconds": seconds})
        run.close()


def _refuse_nan(run: RunFolder, iteration: int, log: dict[str, float]) -> None:
    """KoboshiError where learning gave a number that is not finite: nothing of this iteration is kept."""
    names = [name for name, value in log.items() if name.startswith(LEARNT) and not math.isfinite(value)]
    if names:
        newest = run.latest()
        before = "no checkpoint was written before" if newest is None else f"{newest} is from before it"
        raise KoboshiError(f"in iteration {iteration} {', '.join(names)} is not finite; {before}")


def weights(learner: Learner) -> dict[str, Tensor]:
    """What a checkpoint holds: the policy's weights, named as in any policy file."""
    return {f"policy.{name}": value for name, value in learner.policy.state_dict().items()}


def _save(run: RunFolder, learner: Learner, meta: dict[str, Any]) -> None:
    """Weights first: a kill between the two resumes before them and writes the same ones again."""
    if ranks.is_first():
        run.save(learner.iteration, weights(learner), meta)
    resume.save(run, learner.iteration, learner.state_dict(), meta)


def _resume(run: RunFolder, learner: Learner, meta: dict[str, Any]) -> float:
    """Loads the saved state, if any; gives the seconds of training before it."""
    found = resume.load(run, meta)
    if found is not None:
        try:
            learner.load_state_dict(found[0])
        except (KeyError, ValueError, RuntimeError) as error:
            version = f"another version of koboshi (commit {found[1].get('commit')})"
            raise KoboshiError(f"{run.path} was left by {version}, which alone can resume it: {error!r}") from error
    if ranks.is_first():
        run.truncate_metrics(learner.iteration)
    return 0.0 if found is None else float(found[1]["seconds"])


def levels_by_type(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Type of ground -> its mean level over these rows of a run's log, one at least; nothing without types."""
    prefix = "terrain/level/"
    names = [key for key in rows[-1] if key.startswith(prefix)]
    return {name.removeprefix(prefix): mean(row[name] for row in rows) for name in names}


def training_seconds(run: RunFolder) -> float:
    """Seconds that a finished run's iterations took, kills and resumes left out."""
    return float(load_checkpoint(run.final)[1]["seconds"])
