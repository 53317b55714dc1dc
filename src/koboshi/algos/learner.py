"""What all learners are to those that run them, and the settings they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from koboshi.errors import at_least, unknown
from koboshi.nets import state_tree
from koboshi.policies import ActorCritic, NetworkCfg
from koboshi.vec_env import MirrorMap, Obs, State, VecEnv

DEVICES = ("cpu", "cuda", "xpu", "mps")


@dataclass(frozen=True)
class TrainerCfg:
    """How long and how often."""

    timesteps: int = 4800
    """Steps of the whole batch; each steps every environment once (skrl's meaning)."""
    rollout: int = 24
    """Control steps between updates."""
    seed: int = 1
    checkpoint_interval: int = 20
    """Iterations between checkpoints."""
    device: str = "cpu"
    """Where learning runs: cpu, cuda, xpu or mps; physics has its own device."""

    @property
    def iterations(self) -> int:
        return -(-self.timesteps // self.rollout)

    def validate(self) -> None:
        for name in ("timesteps", "rollout", "checkpoint_interval"):
            at_least(f"agent.trainer.{name}", getattr(self, name), 1)
        if self.device.partition(":")[0] not in DEVICES:
            raise unknown("learning device", self.device, DEVICES)


class Learner(Protocol):
    """Learns an iteration at a time, and can be stopped and resumed exactly."""

    iteration: int

    @property
    def policy(self) -> ActorCritic:
        """What is evaluated and shipped."""
        ...

    def iterate(self) -> dict[str, float]:
        """One iteration; gives what there is to log."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything for an exact resume, the environment included."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


class AgentCfg(Protocol):
    """The settings of a learner: what a task's `agent` may be."""

    @property
    def trainer(self) -> TrainerCfg: ...

    @property
    def network(self) -> NetworkCfg: ...

    @property
    def mirror_groups(self) -> tuple[str, ...]:
        """Observation groups whose mirror image it uses; () where it uses none."""
        ...

    def build(self, env: VecEnv, mirror: MirrorMap | None, rank: int = 0) -> Learner:
        """Its learner in `env`; `rank` sets processes of one `torchrun` apart."""
        ...


class MirroredEnv(VecEnv, Protocol):
    """An environment that may have a mirror image."""

    def mirror_map(self, groups: Sequence[str]) -> MirrorMap: ...


def make_learner(env: MirroredEnv, agent: AgentCfg, rank: int = 0) -> Learner:
    """The learner of `agent`, with the environment's mirror map where it uses one; nothing else needs one."""
    groups = agent.mirror_groups
    return agent.build(env, env.mirror_map(groups) if groups else None, rank)


class Carried(NamedTuple):
    """Where collecting stands between two iterations, on the learning device."""

    obs: Obs
    """Group -> (N, …): what to act on next."""
    reset: Tensor
    """(N,) bool: whose memory begins with it."""
    states: dict[str, State]
    """What each policy that acts or labels carries, by name."""


def seed_of(trainer: TrainerCfg, rank: int) -> tuple[int, int]:
    """Seeds of the environments and of the noise: both differ over processes, which begin with equal weights."""
    return trainer.seed + 104_729 * rank, trainer.seed + 7_919 * rank


def save_learner(
    iteration: int, generator: torch.Generator, carried: Carried | None, **parts: Any
) -> dict[str, Tensor]:
    """A learner's state: counters, noise, where collecting stands, and the `state_dict` of each part."""
    state = {"iteration": torch.tensor(iteration), "rng": generator.get_state()}
    for prefix, part in parts.items():
        state |= {f"{prefix}.{name}": value.detach().clone() for name, value in part.state_dict().items()}
    if carried is not None:
        state["reset"] = carried.reset.clone()
        state |= {f"obs.{group}": x.clone() for group, x in carried.obs.items()}
        for name, carries in carried.states.items():
            state |= {k: x.clone() for k, x in state_tree.flatten(carries, f"carried.{name}").items()}
    return state


def load_learner(
    state: dict[str, Tensor], generator: torch.Generator, initial: dict[str, State], device: torch.device, **parts: Any
) -> tuple[int, Carried | None]:
    """Puts back what `save_learner` gave; `initial`: states of the shapes that were carried."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    generator.set_state(state["rng"].cpu())
    for prefix, part in parts.items():
        part.load_state_dict(under(f"{prefix}."))
    if "reset" not in state:
        return int(state["iteration"]), None
    obs = {group: x.to(device, copy=True) for group, x in under("obs.").items()}
    states = {name: state_tree.unflatten(like, state, f"carried.{name}") for name, like in initial.items()}
    return int(state["iteration"]), Carried(obs, state["reset"].to(device, copy=True), states)
