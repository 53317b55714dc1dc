"""A learner that learns nothing: each iteration adds noise of its own, the mean over processes, to its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from koboshi.nets.distributed import mean_over_ranks_
from koboshi.runs import RunFolder
from koboshi.stages.training import train_loop

ITERATIONS, INTERVAL = 5, 2
META = {"kind": "policy", "robot": "toy", "layout": [["a", 0, 1]]}


class Toy:
    """What it did depends on all that it carries: weights, noise, and the clock of its environment."""

    def __init__(self, rank: int = 0) -> None:
        self.iteration = 0
        self.policy = nn.Linear(2, 2)
        nn.init.zeros_(self.policy.weight)
        nn.init.zeros_(self.policy.bias)
        self.generator = torch.Generator().manual_seed(7 + rank)
        self.clock = torch.zeros(())

    @torch.no_grad()
    def iterate(self) -> dict[str, float]:
        self.iteration += 1
        self.clock += 1
        noise = torch.randn(2, 2, generator=self.generator) * self.clock
        self.policy.weight += mean_over_ranks_(noise)
        return {"clock": float(self.clock), "noise": float(noise[0, 0])}

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        own = {"iteration": torch.tensor(self.iteration), "clock": self.clock}
        return state | own | {"rng": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.iteration, self.clock = int(state["iteration"]), state["clock"].clone()
        self.generator.set_state(state["rng"])
        self.policy.load_state_dict({k.removeprefix("policy."): v for k, v in state.items() if "policy." in k})


def train(folder: Path, rank: int = 0) -> Toy:
    """Trains a toy in a run folder, or resumes it."""
    folder.mkdir(parents=True, exist_ok=True)
    run, learner = RunFolder(folder), Toy(rank)
    train_loop(run, learner, lambda: learner.iteration >= ITERATIONS, ITERATIONS, 1, INTERVAL, META, "toy", {})
    return learner
