"""The batched environment. `Env.step` is the one place where a control step happens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from koboshi.config import override
from koboshi.envs.cfg import EnvCfg
from koboshi.envs.commands import VelocityCommand
from koboshi.envs.observations import LayoutEntry, ObservationManager
from koboshi.envs.rewards import RewardManager
from koboshi.envs.scene import build_model
from koboshi.envs.state import RobotState
from koboshi.errors import KoboshiError
from koboshi.faults import FaultState
from koboshi.robots import ROBOTS
from koboshi.sim import make_backend
from koboshi.vec_env import ActionSpace, Obs, Step

SOFT_LIMIT = 0.9
"""Share of a joint's range that counts as comfortable (Isaac Lab's soft limit factor)."""


class Env:
    """N robots of one kind (a `VecEnv`).

    Order of a step: faults that are due break; the action is held for `decimation` physics steps; environments
    with NaN are put aside; states are read; terminations, rewards; commands; the true final observation; resets
    and their first observations; interval events. Torques and foot readings lag one physics step.
    """

    def __init__(self, cfg: EnvCfg) -> None:
        self.cfg = override(cfg, [])  # validates the whole tree
        self.num_envs, self.step_dt = cfg.num_envs, cfg.step_dt
        self.robot = ROBOTS[cfg.robot]
        self.model = build_model(self.robot, cfg.sim)
        self.backend = make_backend(cfg.sim.backend, self.model, cfg.num_envs, cfg.sim.device)
        self.device = self.backend.device
        self.generator = torch.Generator(self.device)
        self._bind()
        joints = len(self.robot.joint_names)
        self.action_space = ActionSpace(joints)
        self.action, self.previous_action = self._zeros(joints), self._zeros(joints)
        self.episode_step = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self.terminated = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self.total_steps = 0
        self.nan_count = 0
        self._log: dict[str, list[Tensor]] = defaultdict(list)
        self._event_clock = {n: self._zeros() for n, e in cfg.events.items() if e is not None and e.mode == "interval"}
        self.rewards = RewardManager(cfg.rewards, self)
        self.observations = ObservationManager(cfg.observations, self)
        self.obs_dims = self.observations.dims

    def _bind(self) -> None:
        """Live tensors of the physics; all are asked for before the first step, as the backend demands."""
        self.qpos, self.qvel, self.ctrl = (self.backend.read(f) for f in ("qpos", "qvel", "ctrl"))
        self.default_joint_pos = self._row(self.robot.default_joint_pos)
        self.effort_limit = self._row(self.robot.effort_limit)
        low, high = torch.from_numpy(self.model.jnt_range[1:]).float().to(self.device).T
        middle, half = (low + high) / 2, (high - low) / 2 * SOFT_LIMIT
        self.soft_limits = (middle - half, middle + half)
        self.state = RobotState(self.backend, self.robot, self.step_dt)
        self.command = VelocityCommand(self.cfg.command, self.num_envs, self.step_dt, self.device)
        self.faults = FaultState(self.backend, self.robot, _fault_kinds(self.cfg), self.step_dt)

    def _row(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def _zeros(self, *width: int) -> Tensor:
        return torch.zeros(self.num_envs, *width, device=self.device)

    @property
    def layouts(self) -> dict[str, tuple[LayoutEntry, ...]]:
        """Group -> where each term lies."""
        return self.observations.layouts

    def mirror(self, group: str) -> tuple[Tensor, Tensor]:
        """(ids, signs) of an observation group, or of "action": mirrored = signs * x[:, ids]."""
        if group == "action":
            ids = torch.as_tensor(self.robot.mirror_ids, device=self.device)
            return ids, self._row(self.robot.mirror_signs)
        return self.observations.mirror(group, self.robot)

    def joint_ids(self, patterns: Sequence[str]) -> list[int]:
        """Indices of joints that match any of the patterns."""
        return self.robot.joint_ids(*patterns)

    def uniform(self, shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
        """Random numbers from the environment's own generator."""
        size = (shape,) if isinstance(shape, int) else shape
        return low + (high - low) * torch.rand(size, generator=self.generator, device=self.device)

    def reset(self, seed: int) -> Obs:
        """Starts all environments afresh, as a function of the seed alone."""
        self.generator.manual_seed(seed)
        self.total_steps = self.nan_count = 0
        self._log.clear()
        everyone = torch.arange(self.num_envs, device=self.device)
        self.rewards.sums.zero_()
        self.command.scale = 1.0
        for name, left in self._event_clock.items():
            left.copy_(self._interval(name, self.num_envs))
        self._advance_curriculum(everyone)
        self._reset_ids(everyone)
        return self.observations.compute(fresh=torch.ones_like(self.terminated))

    def step(self, action: Tensor) -> Step:
        """One control step. action (N, J); see the class for the order."""
        self.faults.advance(self.episode_step)
        self._act(action)
        self.backend.step(self.cfg.decimation)
        bad = self._put_bad_aside()
        self.state.update()
        self.episode_step += 1
        self.total_steps += 1
        terminated, truncated = self._terminations(bad)
        reward = self._reward(bad)
        self.command.step(self.generator)
        final_obs = self._checked(self.observations.compute())
        done = terminated | truncated
        fresh = done.any().item()
        if fresh:
            self._end_episodes(done.nonzero().squeeze(1), truncated)
        obs = self.observations.compute(done, final_obs) if fresh else final_obs
        self._interval_events()
        return Step(obs, reward, terminated, truncated, final_obs, self._extras(bad))

    def _act(self, action: Tensor) -> None:
        self.previous_action = self.action
        self.action = action.clamp(-self.cfg.action.clip, self.cfg.action.clip)
        self.ctrl.copy_(torch.add(self.default_joint_pos, self.action, alpha=self.cfg.action.scale))

    def _put_bad_aside(self) -> Tensor:
        """(N,) bool: environments whose physics failed: counted, made finite now, terminated below."""
        bad = self.state.bad_rows()
        count = int(bad.sum())
        if count:
            self.nan_count += count
            self._stop_if_too_many_nans(bad)
            self.backend.reset(bad.nonzero().squeeze(1))
        return bad

    def _stop_if_too_many_nans(self, bad: Tensor) -> None:
        rate = self.nan_count / ((self.total_steps + 1) * self.num_envs)
        # A few early failures in a small batch are not yet a rate.
        if rate > self.cfg.max_nan_rate and self.nan_count > 10:
            # A NaN spreads to all joints within a physics step, so the last good control step says more.
            speed, joint = self.state.joint_vel[bad][0].abs().max(0)
            raise KoboshiError(
                f"physics gave NaN in {self.nan_count} environment steps ({rate:.2%}, at most "
                f"{self.cfg.max_nan_rate:.2%}); last in environment {int(bad.nonzero()[0])}, where the step before "
                f"'{self.robot.joint_names[int(joint)]}' was the fastest joint at {float(speed):.3g} rad/s"
            )

    def _terminations(self, bad: Tensor) -> tuple[Tensor, Tensor]:
        terminated, truncated = bad.clone(), torch.zeros_like(bad)
        for name, term in self.cfg.terminations.items():
            if term is not None:
                value = term.func(self, **term.params)
                if value.shape != (self.num_envs,):
                    raise KoboshiError(f"termination '{name}' has shape {tuple(value.shape)}, not ({self.num_envs},)")
                target = truncated if term.time_out else terminated
                target |= value
        self.terminated = terminated
        return terminated, truncated & ~terminated

    def _reward(self, bad: Tensor) -> Tensor:
        reward = self.rewards.compute().masked_fill(bad, 0.0)
        if not torch.isfinite(reward.sum()):
            raise KoboshiError(f"reward '{self.rewards.blame()}' gave NaN or infinity")
        return reward

    def _checked(self, obs: Obs) -> Obs:
        for group, value in obs.items():
            if not torch.isfinite(value.sum()):
                raise KoboshiError(f"observation '{group}.{self.observations.blame(group, value)}' is not finite")
        return obs

    def _end_episodes(self, ids: Tensor, truncated: Tensor) -> None:
        for name, value in self.rewards.pop(ids, self.cfg.episode_length_s).items():
            self._log[name].append(value)
        self._log["episode/length_s"].append(self.episode_step[ids].float().mean() * self.step_dt)
        self._log["episode/falls"].append((~truncated[ids]).float().mean())
        self._advance_curriculum(ids)
        self._reset_ids(ids)

    def _advance_curriculum(self, ids: Tensor) -> None:
        for name, term in self.cfg.curriculum.items():
            if term is not None:
                self._log[f"curriculum/{name}"].append(torch.tensor(term.func(self, ids, **term.params)))

    def _reset_ids(self, ids: Tensor) -> None:
        self.faults.clear(ids)
        self.backend.reset(ids)
        self.command.resample(ids, self.generator)
        self._place(ids)
        self.action = self.action.index_fill(0, ids, 0.0)
        self.previous_action = self.previous_action.index_fill(0, ids, 0.0)
        self.episode_step[ids] = 0
        self.state.clear(ids)

    def _place(self, ids: Tensor) -> None:
        """Runs the reset events; without any, the robot stands in its default pose."""
        self.qpos[ids, 2] = self.robot.base_height
        self.qpos[ids, 7:] = self.default_joint_pos.to(self.qpos.dtype)
        self.ctrl[ids] = self.default_joint_pos.to(self.ctrl.dtype)
        for term in self.cfg.events.values():
            if term is not None and term.mode == "reset":
                term.func(self, ids, **term.params)

    def _interval_events(self) -> None:
        for name, left in self._event_clock.items():
            left -= self.step_dt
            due = (left <= 0).nonzero().squeeze(1)
            if len(due):
                term = self.cfg.events[name]
                assert term is not None
                term.func(self, due, **term.params)
                left[due] = self._interval(name, len(due))

    def _interval(self, name: str, count: int) -> Tensor:
        """(count,) seconds until an interval event's next time."""
        term = self.cfg.events[name]
        assert term is not None
        return self.uniform(count, *term.interval_s)

    def _extras(self, bad: Tensor) -> dict[str, Any]:
        return {"valid": ~bad} if self.nan_count else {}

    def pop_log(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, a number a term, and NaNs counted so far."""
        log = {name: float(torch.stack(values).float().mean()) for name, values in self._log.items()}
        self._log.clear()
        return log | {"episode/nan": float(self.nan_count)}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a later `load_state_dict` needs to go on with the same numbers."""
        own = {
            "physics": self.backend.snapshot(),
            "action": self.action,
            "previous_action": self.previous_action,
            "episode_step": self.episode_step,
            "reward_sums": self.rewards.sums,
            "rng": self.generator.get_state(),
            "counters": torch.tensor([self.total_steps, self.nan_count]),
        }
        own |= {f"event.{name}": left for name, left in self._event_clock.items()}
        return {k: v.clone() for k, v in own.items()} | {
            f"{part}.{k}": v for part, owner in self._parts().items() for k, v in owner.state_dict().items()
        }

    def _parts(self) -> dict[str, Any]:
        return {"faults": self.faults, "state": self.state, "command": self.command, "obs": self.observations}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken."""
        self.backend.restore(state["physics"])
        for part, owner in self._parts().items():
            prefix = part + "."
            owner.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.action = state["action"].to(self.device, copy=True)
        self.previous_action = state["previous_action"].to(self.device, copy=True)
        self.episode_step.copy_(state["episode_step"])
        self.rewards.sums.copy_(state["reward_sums"])
        self.generator.set_state(state["rng"].cpu())
        self.total_steps, self.nan_count = (int(v) for v in state["counters"])
        for name, left in self._event_clock.items():
            left.copy_(state[f"event.{name}"])


def _fault_kinds(cfg: EnvCfg) -> tuple[str, ...]:
    """The fault kinds that any event of the configuration may cause."""
    kinds: set[str] = set()
    for term in cfg.events.values():
        for value in term.params.values() if term is not None else ():
            kinds |= set(getattr(value, "kinds", ()))
    return tuple(sorted(kinds))
