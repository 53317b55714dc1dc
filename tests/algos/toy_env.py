"""A point on a line that learns to go to 0, and rollouts of random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi.algos.ppo import PPO, MirrorMap, NetworkCfg, PPOCfg, TrainerCfg
from koboshi.algos.ppo.rollout import Rollout
from koboshi.vec_env import ActionSpace, Obs, Step

MIRROR = MirrorMap(torch.tensor([0]), torch.tensor([-1.0]), torch.tensor([0]), torch.tensor([-1.0]))


class PointEnv:
    """Position x in [-1, 1] moves by 0.3·a; reward −x². Falls beyond 2; episodes last 10 steps.

    With `discrete`, the choices 0, 1, 2 are a = −1, 0, 1.
    """

    obs_dims = {"policy": 1, "critic": 1}
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
        self.obs_dims = {"policy": 4, "critic": 5}
        self.action_space = ActionSpace(3, discrete)


def small_cfg(**settings: object) -> PPOCfg:
    """Two epochs of two minibatches with small networks; `settings` replace fields of PPOCfg."""
    defaults: dict[str, object] = {
        "trainer": TrainerCfg(rollout=8),
        "network": NetworkCfg(hidden=(16, 16)),
        "epochs": 2,
        "minibatches": 2,
    }
    return PPOCfg(**defaults | settings)  # type: ignore[arg-type]


def random_rollout(envs: int, seed: int, steps: int = 8, discrete: bool = False) -> Rollout:
    """Made-up transitions of a `SpaceEnv` with ends of both kinds, all valid."""
    g = torch.Generator().manual_seed(seed)
    ends = torch.rand(steps, envs, generator=g)
    terminated, truncated = ends < 0.1, ends > 0.9
    cut = []
    for t in range(steps):
        ids = truncated[t].nonzero().squeeze(1)
        if len(ids):
            cut.append((t, ids, torch.randn(len(ids), 5, generator=g)))
    if discrete:
        action = torch.randint(3, (steps, envs), generator=g)
    else:
        action = torch.randn(steps, envs, 3, generator=g)
    return Rollout(
        torch.randn(steps, envs, 4, generator=g),
        torch.randn(steps, envs, 5, generator=g),
        action,
        torch.randn(steps, envs, generator=g),
        terminated,
        truncated,
        torch.ones(steps, envs, dtype=torch.bool),
        last_critic_obs=torch.randn(envs, 5, generator=g),
        cut=cut,
    )


def columns(rollout: Rollout, ids: Tensor) -> Rollout:
    """The part of a rollout that environments `ids` made."""
    place = {int(i): n for n, i in enumerate(ids)}
    cut = []
    for t, cut_ids, obs in rollout.cut:
        rows = [n for n, i in enumerate(cut_ids.tolist()) if i in place]
        if rows:
            cut.append((t, torch.tensor([place[int(cut_ids[n])] for n in rows]), obs[rows]))
    fields = ("policy_obs", "critic_obs", "action", "reward", "terminated", "truncated", "valid")
    kept = (getattr(rollout, name)[:, ids] for name in fields)
    return Rollout(*kept, last_critic_obs=rollout.last_critic_obs[ids], cut=cut)


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 0.0) -> None:
    """Equal tensors under equal names; bit for bit unless told otherwise."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def learner(members: int, per_member: int, cfg: PPOCfg | None = None, discrete: bool = False) -> PPO:
    """A learner for made-up rollouts of `members`·`per_member` environments."""
    return PPO(SpaceEnv(members * per_member, discrete), cfg or small_cfg(), members)
