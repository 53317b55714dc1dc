"""DAgger: the student acts and carries its own state, the teacher labels what the student met."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from koboshi.algos.distillation.cfg import DistillationCfg
from koboshi.algos.learner import Carried, load_learner, save_learner, seed_of
from koboshi.devices import local_device
from koboshi.errors import KoboshiError
from koboshi.nets.distributed import mean_over_ranks_
from koboshi.nets.stack import FlatParameters, StackedAdam
from koboshi.nets.state_tree import map_state
from koboshi.policies import ActorCritic, flatten_obs
from koboshi.vec_env import Obs, Policy, State, VecEnv


class Distillation:
    """Learns the teacher's action means by squared error, one student in all environments (a `Learner`).

    Each iteration: `rollout` steps under the student, then epochs over minibatches of whole environments, so that
    students that carry something learn as those that do not.
    """

    def __init__(self, env: VecEnv, cfg: DistillationCfg, teacher: Policy, *, rank: int = 0) -> None:
        """`rank` sets processes of one `torchrun` apart: the same weights, other environments."""
        if env.action_space.discrete:
            raise KoboshiError("distillation learns action means, and the environment's actions are discrete")
        self.env, self.cfg, self.teacher = env, cfg, teacher
        self.device = local_device(cfg.trainer.device)
        torch.manual_seed(cfg.trainer.seed)
        self.policy = ActorCritic(1, env.obs_spec, env.action_space, cfg.network).to(self.device)
        self._actor = self.policy.actor
        if self._actor.auxiliary_loss is not None:
            kind = type(cfg.network.actor).__name__
            raise KoboshiError(f"distillation learns actions alone, and {kind} has a loss of its own, for PPO")
        self.parameters = FlatParameters([self._actor])
        self.optimizer = StackedAdam(self.parameters.value)
        self._seed, noise = seed_of(cfg.trainer, rank)
        self.generator = torch.Generator(self.device).manual_seed(noise)
        self._carried: Carried | None = None
        self.iteration = 0

    def iterate(self) -> dict[str, float]:
        """One rollout and its epochs; gives the error (`loss/imitation`, mean square a number of the action)."""
        obs, label, begins, state = self.collect()
        log = self.update(obs, label, begins, state)
        self.iteration += 1
        return log | self.env.pop_log()

    def _copied(self, obs: Obs) -> Obs:
        return {group: x.to(self.device, copy=True) for group, x in obs.items()}

    def _initial_states(self) -> dict[str, State]:
        num_envs = self.env.num_envs
        return {
            "student": self.policy.initial_state(num_envs),
            "teacher": self.teacher.initial_state(num_envs, self.env.device),
        }

    def _begin(self) -> Carried:
        reset = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.device)
        return Carried(self._copied(self.env.reset(self._seed)), reset, self._initial_states())

    @torch.no_grad()
    def collect(self) -> tuple[Obs, Tensor, Tensor, State]:
        """What the student saw (T, N, …), the teacher's actions (T, N, A), resets (T, N), the student's first state."""
        obs, reset, states = self._carried or self._begin()
        student, teacher = states["student"], states["teacher"]
        first, rows = student, []
        for _ in range(self.cfg.trainer.rollout):
            here = {group: x.to(self.env.device) for group, x in obs.items()}
            label, teacher = self.teacher.act(here, teacher, reset.to(self.env.device))
            seen = {group: obs[group] for group in self._actor.groups}
            action, student = self.policy.act({g: x[None] for g, x in seen.items()}, student, reset[None])
            rows.append((seen, label.to(self.device, copy=True), reset))
            step = self.env.step(action[0].to(self.env.device))
            obs, reset = self._copied(step.obs), (step.terminated | step.truncated).to(self.device)
        self._carried = Carried(obs, reset, {"student": student, "teacher": teacher})
        seen = {group: torch.stack([row[0][group] for row in rows]) for group in self._actor.groups}
        return seen, torch.stack([row[1] for row in rows]), torch.stack([row[2] for row in rows]), first

    def update(self, obs: Obs, label: Tensor, begins: Tensor, state: State) -> dict[str, float]:
        """Several epochs over what `collect` gave."""
        steps = len(label)
        flat = flatten_obs({group: x.flatten(0, 1)[None] for group, x in obs.items()})
        with torch.no_grad():
            self.policy.update_statistics(flat, None, None)
            normal = {g: x.unflatten(1, (steps, -1)) for g, x in self.policy.normalize(flat).items()}
        errors = []
        for _ in range(self.cfg.epochs):
            order = torch.randperm(label.shape[1], generator=self.generator, device=self.device)
            for ids in order.chunk(self.cfg.minibatches):
                part = {group: x.index_select(2, ids) for group, x in normal.items()}
                carried = map_state(partial(torch.index_select, dim=1, index=ids), state)
                mean, _ = self._actor.sequence(part, carried, begins[None].index_select(2, ids))
                error = (mean[0] - label.index_select(1, ids)).square().mean()
                self._step(error)
                errors.append(error.detach())
        return {"loss/imitation": torch.stack(errors).mean().item()}

    def _step(self, loss: Tensor) -> None:
        grad = mean_over_ranks_(self.parameters.gradient(loss))
        rate = torch.full((1,), self.cfg.learning_rate, device=self.device)
        everyone = torch.ones(1, dtype=torch.bool, device=self.device)
        self.optimizer.step(grad, rate, self.cfg.max_grad_norm, everyone)

    def _parts(self) -> dict[str, object]:
        return {"policy": self.policy, "optimizer": self.optimizer, "env": self.env}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything for an exact resume, the environment included; the teacher comes from its file."""
        return save_learner(self.iteration, self.generator, self._carried, **self._parts())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes where `state_dict` was taken."""
        found = load_learner(state, self.generator, self._initial_states(), self.device, **self._parts())
        self.iteration, self._carried = found
