"""A point on a line that learns to go to 0, and rollouts of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from koboshi.algos.learner import Learner
from koboshi.algos.ppo import PPO, MirrorMap, MlpCfg, NetworkCfg, PPOCfg, Rollout, TrainerCfg
from koboshi.runs import load_checkpoint, save_checkpoint
from koboshi.vec_env import ActionSpace, Obs, ObsSpec, Step

TURN = (torch.tensor([0]), torch.tensor([-1.0]))
MIRROR = MirrorMap({"policy": TURN}, TURN)


class PointEnv:
    """Position x in [-1, 1] moves by 0.3·a; reward −x². Falls beyond 2; episodes last 10 steps.

    With `discrete`, the choices 0, 1, 2 are a = −1, 0, 1.
    """

    obs_spec = {"policy": ObsSpec((1,)), "critic": ObsSpec((1,))}
    device = torch.device("cpu")

    def __init__(self, num_envs: int = 16, discrete: bool = False) -> None:
        self.num_envs = num_envs
        self.action_space = ActionSpace(3 if discrete else 1, discrete)
        self.generator = torch.Generator()
        self.x, self.age = torch.zeros(num_envs), torch.zeros(num_envs, dtype=torch.int64)

    def _start(self, ids: Tensor) -> None:
        self.x[ids] = torch.rand(len(ids), generator=self.generator) * 2 - 1
        self.age[ids] = 0

    def _obs(self) -> Obs:
        return {"policy": self.x[:, None].clone(), "critic": self.x[:, None].clone()}

    def reset(self, seed: int) -> Obs:
        self.generator.manual_seed(seed)
        self._start(torch.arange(self.num_envs))
        return self._obs()

    def step(self, action: Tensor) -> Step:
        a = action - 1.0 if self.action_space.discrete else action[:, 0]
        self.x += 0.3 * a
        self.age += 1
        reward, final_obs = -self.x.square(), self._obs()
        terminated = self.x.abs() > 2
        truncated = (self.age == 10) & ~terminated
        self._start((terminated | truncated).nonzero().squeeze(1))
        return Step(self._obs(), reward, terminated, truncated, final_obs, {})

    def pop_log(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"x": self.x.clone(), "age": self.age.clone(), "rng": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.x, self.age = state["x"].clone(), state["age"].clone()
        self.generator.set_state(state["rng"])


class SpaceEnv(PointEnv):
    """Only sizes, for a learner that is fed with made-up rollouts."""

    def __init__(self, num_envs: int, discrete: bool = False) -> None:
        super().__init__(num_envs, discrete)
        self.obs_spec = {"policy": ObsSpec((4,)), "critic": ObsSpec((5,))}
        self.action_space = ActionSpace(3, discrete)


def network(*hidden: int, **settings: object) -> NetworkCfg:
    """An actor and a critic of one shape."""
    return NetworkCfg(MlpCfg(hidden=hidden), critic_hidden=hidden, **settings)  # type: ignore[arg-type]


def small_cfg(**settings: object) -> PPOCfg:
    """Two epochs of two minibatches with small networks; `settings` replace fields of PPOCfg."""
    defaults: dict[str, object] = {
        "trainer": TrainerCfg(rollout=8),
        "network": network(16, 16),
        "epochs": 2,
        "minibatches": 2,
    }
    return PPOCfg(**defaults | settings)  # type: ignore[arg-type]


def random_rollout(envs: int, seed: int, steps: int = 8, discrete: bool = False) -> Rollout:
    """Made-up transitions of a `SpaceEnv` with ends of both kinds, all valid."""
    g = torch.Generator().manual_seed(seed)
    ends = torch.rand(steps, envs, generator=g)
    if discrete:
        action = torch.randint(3, (steps, envs), generator=g)
    else:
        action = torch.randn(steps, envs, 3, generator=g)
    return Rollout(
        {name: torch.randn(steps, envs, d, generator=g) for name, d in (("policy", 4), ("critic", 5))},
        action,
        torch.randn(steps, envs, generator=g),
        ends < 0.1,
        ends > 0.9,
        torch.ones(steps, envs, dtype=torch.bool),
        torch.zeros(steps, envs, dtype=torch.bool),
        last_obs={"critic": torch.randn(envs, 5, generator=g)},
        final_value=torch.randn(steps, envs, generator=g),
        first=torch.rand(envs, generator=g) < 0.2,
    )


def columns(rollout: Rollout, ids: Tensor) -> Rollout:
    """The part of a rollout that environments `ids` made; of one member, where anything is carried."""
    fields = ("action", "reward", "terminated", "truncated", "valid", "anew", "final_value")
    part = {name: getattr(rollout, name)[:, ids] for name in fields}
    obs = {group: x[:, ids] for group, x in rollout.obs.items()}
    last = {group: x[ids] for group, x in rollout.last_obs.items()}
    assert rollout.first is not None
    return Rollout(obs=obs, **part, last_obs=last, first=rollout.first[ids])


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 0.0) -> None:
    """Equal tensors under equal names; bit for bit unless told otherwise."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def assert_resumes(make: Callable[[], Learner], folder: Path) -> None:
    """A learner that is killed after 3 of 6 iterations goes on from its file with the numbers of one that was not."""
    whole, killed = make(), make()
    logs = [whole.iterate() for _ in range(6)]
    for _ in range(3):
        killed.iterate()
    save_checkpoint(folder / "state.safetensors", killed.state_dict(), {})

    torch.manual_seed(12345)  # whatever else the new process did
    resumed = make()
    resumed.load_state_dict(load_checkpoint(folder / "state.safetensors")[0])
    assert [resumed.iterate() for _ in range(3)] == logs[3:]
    assert resumed.iteration == 6
    assert_same(resumed.state_dict(), whole.state_dict())


def learner(members: int, per_member: int, cfg: PPOCfg | None = None, discrete: bool = False) -> PPO:
    """A learner for made-up rollouts of `members`·`per_member` environments."""
    return PPO(SpaceEnv(members * per_member, discrete), cfg or small_cfg(), members)
