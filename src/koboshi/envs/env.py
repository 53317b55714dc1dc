"""The batched environment. `Env.step` is the one place where a control step happens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from koboshi import robots
from koboshi.config import override
from koboshi.envs.actions import ActionManager
from koboshi.envs.cfg import EnvCfg
from koboshi.envs.commands import VelocityCommand
from koboshi.envs.events import EventManager
from koboshi.envs.log import EpisodeLog, Guard
from koboshi.envs.observations import LayoutEntry, ObservationManager
from koboshi.envs.rewards import RewardManager
from koboshi.envs.scene import Scene
from koboshi.envs.state import RobotState
from koboshi.errors import KoboshiError, unknown
from koboshi.faults import FaultLayer, Scenarios
from koboshi.robots import Foot, JointMap
from koboshi.robots.maps import sensor_ids
from koboshi.sim import ModelFields, anyone, make_backend, make_generator
from koboshi.vec_env import MirrorMap, Obs, Step

SOFT_LIMIT = 0.9
"""Share of a joint's range that counts as comfortable (Isaac Lab's soft limit factor)."""


class Env:
    """N robots of one kind (a `VecEnv`).

    Order of a step: faults that are due begin or end; the action is held for `decimation` physics steps; states are
    read; terminations, rewards; commands; interval events; the true final observation; resets and their first
    observations. Torques and foot readings lag one physics step, and where an interval event moved a robot so does all
    that physics derives from its position. An environment whose physics gave NaN terminates
    with a reward of 0 and is not valid to learn from.
    """

    def __init__(self, cfg: EnvCfg) -> None:
        self.cfg = override(cfg, [])  # validates the whole tree
        self.num_envs, self.step_dt = cfg.num_envs, cfg.step_dt
        self.robot = robots.find(cfg.robot)
        self.robot.check_mirror()
        self.scene = Scene(cfg.scene, self.robot, cfg.sim, cfg.actions.delay[1])
        self.model = self.scene.model
        self.backend = make_backend(cfg.sim.backend, self.model, cfg.num_envs, cfg.sim.device)
        self.device = self.backend.device
        self.generator = make_generator(self.device, seed=0)
        self._ids: dict[tuple[str, tuple[str, ...]], Tensor] = {}
        self._bind()
        self.episode_step = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self.terminated = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self.encoder_bias = self._zeros(len(self.robot.joint_names))
        """(N, J) rad, what a randomisation adds to every position that is sensed."""
        self.total_steps = 0
        self.nan_count = torch.zeros((), dtype=torch.int64, device=self.device)
        self.log, self.guard = EpisodeLog(self.device), Guard()
        self.events = EventManager(cfg.events, self)
        self.rewards = RewardManager(cfg.rewards, self)
        self.observations = ObservationManager(cfg.observations, self)
        self.obs_spec = self.observations.spec

    def _bind(self) -> None:
        """Live tensors of the physics; all are asked for before the first step, as the backend demands."""
        self.qpos, self.qvel, self.ctrl = (self.backend.read(f) for f in ("qpos", "qvel", "ctrl"))
        self.joints = JointMap(self.model, self.robot, self.device)
        self.default_joint_pos = self._row(self.robot.default_joint_pos)
        self.effort_limit = self._row(self.robot.effort_limit)
        low, high = torch.from_numpy(self.model.jnt_range).float().to(self.device)[self.joints.joint].T
        middle, half = (low + high) / 2, (high - low) / 2 * SOFT_LIMIT
        half = half.masked_fill(torch.from_numpy(~self.robot.limited).to(self.device), torch.inf)
        self.soft_limits = (middle - half, middle + half)
        self.scene.attach(self.backend)
        self.fields = ModelFields(self.backend)
        self.state = RobotState(self.backend, self.robot, self.joints, self.scene, self.step_dt)
        self.faults = FaultLayer(self.cfg.faults, self.robot, self.joints, self.backend, self.fields, self.step_dt)
        self.actions = ActionManager(self.cfg.actions, self)
        self.action_space = self.actions.space
        script = self.cfg.faults if isinstance(self.cfg.faults, Scenarios) else None
        self._fixed_command = None if script is None else script.commands().to(self.device)
        self._fixed_heading = None if script is None else script.headings().to(self.device)
        holds = script is not None and any(episode.heading is not None for episode in script.episodes)
        self.command = VelocityCommand(self.cfg.command, self.num_envs, self.step_dt, self.device, holds=holds)

    def _row(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def _zeros(self, *width: int) -> Tensor:
        return torch.zeros(self.num_envs, *width, device=self.device)

    @property
    def robot_mass(self) -> float:
        """kg of the whole robot, as the model says."""
        return float(self.model.body_subtreemass[self.model.body(self.robot.base_body).id])

    @cached_property
    def external_force(self) -> Tensor:
        """(N, 3) live: what pushes each base's centre of mass besides all else, in the world's frame, N."""
        return self.backend.read("xfrc_applied")[:, self.model.body(self.robot.base_body).id, :3]

    @property
    def layouts(self) -> dict[str, tuple[LayoutEntry, ...]]:
        """Group -> where each term lies, of groups that are vectors."""
        return self.observations.layouts

    def mirror_map(self, groups: Sequence[str]) -> MirrorMap:
        """Left and right exchanged, in these observation groups and in actions.

        KoboshiError where the robot or a term has no mirror image.
        """
        obs = {group: self.observations.mirror(group) for group in groups}
        return MirrorMap(obs, self.mirror_of_joints(self.actions.joints))

    def mirror_of_joints(self, joints: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(ids, signs), each (n,): the mirror image of numbers x (…, n), one a joint, is `signs * x[..., ids]`."""
        place = {joint: i for i, joint in enumerate(joints)}
        others = self.robot.mirror_ids[list(joints)].tolist()
        for joint, other in zip(joints, others, strict=True):
            if other not in place:
                names = self.robot.joint_names
                raise KoboshiError(f"joint '{names[joint]}' is listed without its mirror image '{names[other]}'")
        ids = torch.tensor([place[other] for other in others], device=self.device)
        return ids, self._row(self.robot.mirror_signs[list(joints)])

    @cached_property
    def joint_mirror(self) -> tuple[Tensor, Tensor]:
        """`mirror_of_joints` of all joints, in the robot's order."""
        return self.mirror_of_joints(range(len(self.robot.joint_names)))

    @property
    def term_joints(self) -> dict[str, list[str]]:
        """Observation term -> the joint of each of its numbers, where these are not all joints in their order."""
        return self.observations.term_joints

    def joint_ids(self, patterns: tuple[str, ...]) -> Tensor:
        """Indices of joints that match any of the patterns, on the device."""
        return self._indices(("joints", patterns), lambda: self.robot.joint_ids(*patterns))

    def foot_ids(self, names: tuple[str, ...]) -> Tensor:
        """Indices of feet, on the device."""
        return self._indices(("feet", names), lambda: [self.robot.foot_id(name) for name in names])

    def sensor(self, name: str) -> Tensor:
        """(N, d) what a sensor of the model reads, a physics step behind positions, as MuJoCo's do."""
        return self.state.sensordata[:, self._indices(("sensor", (name,)), lambda: sensor_ids(self.model, [name]))]

    @property
    def foot_force(self) -> Tensor:
        """(N, F, 3) contact force on each foot's soles, N, world frame; its sign is the sensor's.

        KoboshiError where contacts of bodies are not sensed.
        """
        sensors = self.state.sensordata
        columns = (
            self._indices(("force", (foot.name,)), partial(self._force_columns, foot)) for foot in self.robot.feet
        )
        return torch.stack([sensors[:, c].unflatten(1, (-1, 3)).sum(1) for c in columns], dim=1)

    def _force_columns(self, foot: Foot) -> list[int]:
        self._check_sensed()
        return self.joints.foot_force[foot.name]

    def _check_sensed(self) -> None:
        if not self.joints.touching:
            raise KoboshiError("contacts of bodies are sensed where env.scene.contacts=body")

    def touching(self, bodies: tuple[str, ...]) -> Tensor:
        """(N, n) bool: which bodies (patterns) touch the ground, or what stands on it, with other than their soles.

        KoboshiError where their contacts are not sensed.
        """
        columns = self._indices(("touching", bodies), lambda: self._touch_columns(bodies))
        # A body without as many geoms as the fullest has its last one again.
        return (self.state.sensordata[:, columns.flatten()].view(self.num_envs, *columns.shape) > 0).any(-1)

    def _touch_columns(self, patterns: tuple[str, ...]) -> list[list[int]]:
        self._check_sensed()
        sensed = self.joints.touching
        found = [columns for body, columns in sensed.items() if any(re.fullmatch(p, body) for p in patterns)]
        if not found:
            raise unknown("body that touches the ground", "' or '".join(patterns), sensed, "bodies")
        most = max(map(len, found))
        return [columns + columns[-1:] * (most - len(columns)) for columns in found]

    def body_ids(self, names: tuple[str, ...]) -> Tensor:
        """Indices of bodies, on the device."""
        return self._indices(("bodies", names), lambda: [self.model.body(name).id for name in names])

    def _indices(self, key: tuple[str, tuple[str, ...]], find: Callable[[], Sequence[object]]) -> Tensor:
        # A list would be sent to the device again in every step.
        if key not in self._ids:
            self._ids[key] = torch.tensor(find(), device=self.device)
        return self._ids[key]

    def uniform(self, shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
        """Random numbers from the environment's own generator."""
        size = (shape,) if isinstance(shape, int) else shape
        return low + (high - low) * torch.rand(size, generator=self.generator, device=self.device)

    def reset(self, seed: int) -> Obs:
        """Starts all environments afresh, as a function of the seed alone."""
        self.generator.manual_seed(seed)
        self.total_steps = 0
        self.nan_count.zero_()
        self.log.pop()
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self.rewards.sums.zero_()
        self.rewards.values.clear()
        self.command.scale = self.faults.scale = self.events.share = 1.0
        self.fields.restore_nominal()
        self.encoder_bias.zero_()
        self.scene.levels.draw(self.generator)
        self.events.startup()
        self._advance_curriculum(everyone)
        self._restart(everyone)
        if self.cfg.random_initial_length:
            self.episode_step.copy_(self.uniform(self.num_envs, 0, self.cfg.max_episode_length).long())
            self.faults.postpone(self.episode_step)
        return self.observations.compute(fresh=everyone)

    def step(self, action: Tensor) -> Step:
        """One control step. action (N, A); see the class for the order."""
        self.faults.advance(self.episode_step)
        self.actions.take(action)
        self.actions.drive()
        bad = self.state.update()
        self.scene.follow(self.state.base_pos)
        self.episode_step += 1
        self.total_steps += 1
        terminated, truncated = self._terminations(bad)
        reward = self._reward(bad)
        done = terminated | truncated
        self.command.step(self.state.heading, self.generator, done)
        if self.events.interval(done):
            self.state.refresh_motion(bad)
        final_obs = self._checked(self.observations.compute())
        obs = self._next_episodes(done, final_obs) if anyone(done) else final_obs
        return Step(obs, reward, terminated, truncated, final_obs, {"valid": ~bad})

    def _terminations(self, bad: Tensor) -> tuple[Tensor, Tensor]:
        self._count_bad(bad)
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

    def _count_bad(self, bad: Tensor) -> None:
        self.nan_count += bad.sum()
        if self.device.type == "cpu" and anyone(bad):
            self._stop_if_too_many_nans(f"; last in environment {int(bad.nonzero()[0])}")

    def _stop_if_too_many_nans(self, where: str = "") -> None:
        """KoboshiError where too large a share of environment steps ended in a NaN from physics."""
        count, most = int(self.nan_count), self.cfg.max_nan_rate
        rate = count / (max(self.total_steps, 1) * self.num_envs)
        # A few early failures in a small batch are not yet a rate.
        if rate > most and count > 10:
            raise KoboshiError(f"physics gave NaN in {count} environment steps ({rate:.2%}, at most {most:.2%}){where}")

    def _reward(self, bad: Tensor) -> Tensor:
        reward = self.rewards.compute(bad)
        self.guard.check("reward", reward, self.rewards.blame)
        return reward

    def _checked(self, obs: Obs) -> Obs:
        for group, value in obs.items():
            if value.is_floating_point():
                self.guard.check(
                    "observation",
                    value,
                    lambda g=group, v=value: f"{g}.{self.observations.blame(g, v)}",  # type: ignore[misc]
                )
        return obs

    def _next_episodes(self, done: Tensor, final_obs: Obs) -> Obs:
        """Ends the episodes in `done` and begins new ones."""
        seconds = self.episode_step * self.step_dt
        # Who fell earned nothing for the rest of its time; who was stopped in its stride would have gone on.
        ended = self.rewards.pop(done, torch.where(self.terminated, self.cfg.episode_length_s, seconds))
        self.log.add(done, ended | {"episode/length_s": seconds, "episode/falls": self.terminated.float()})
        self._advance_curriculum(done)
        self._restart(done)
        return self.observations.compute(done, final_obs)

    def _advance_curriculum(self, mask: Tensor) -> None:
        for name, term in self.cfg.curriculum.items():
            if term is not None:
                value = term.func(self, mask, **term.params)
                if value is not None:
                    self.log.note(f"curriculum/{name}", value)

    def _restart(self, mask: Tensor) -> None:
        """New episodes of the environments in `mask`: placed, randomised, their derived fields true."""
        self.backend.reset(mask)
        self.faults.restart(mask, self.generator)
        self.command.resample(mask, self.generator)
        if self._fixed_command is not None:
            self.command.fix(mask, self._fixed_command)
        self.actions.restart(mask, self.generator)
        self._stand(mask)
        self.events.reset(mask)
        self.backend.forward(mask)
        self.episode_step.masked_fill_(mask, 0)
        self.state.restart(mask)
        if self._fixed_heading is not None:
            self.command.hold(mask & self._fixed_heading.isfinite(), self.state.heading + self._fixed_heading)
        self.command.track(self.state.heading)

    def _stand(self, mask: Tensor) -> None:
        """In the default pose at the environment's origin; reset events may change it."""
        place = self.scene.origins
        place[:, 2] += self.robot.base_height
        self.scene.follow(place, mask)
        self.place(mask, "base_pos", place)
        self.place(mask, "qpos", self.default_joint_pos.expand(self.num_envs, -1))

    def place(self, mask: Tensor, part: str, value: Tensor) -> None:
        """Sets a part of the robots in `mask` (N,): one of `JointMap`'s column names; value (N, width)."""
        field = self.qvel if part in ("dof", "base_lin_vel", "base_ang_vel") else self.qpos
        columns = getattr(self.joints, part)
        field[:, columns] = torch.where(mask[:, None], value.to(field.dtype), field[:, columns])

    def settle(self) -> None:
        """KoboshiError for what was noted while nobody waited: lost contacts, numbers that are not finite, NaNs."""
        self.backend.check()
        self.guard.settle()
        self._stop_if_too_many_nans()

    def pop_log(self) -> dict[str, float]:
        """Means over the episodes that ended since the last call, and NaNs counted so far; settles what was noted."""
        self.settle()
        found = self.log.pop(self.rewards.values.pop())
        return found | self.scene.levels.summary() | {"episode/nan": float(self.nan_count)}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a later `load_state_dict` needs to continue with the same numbers."""
        own = {
            "physics": self.backend.snapshot(),
            "episode_step": self.episode_step,
            "reward_sums": self.rewards.sums,
            "encoder_bias": self.encoder_bias,
            "rng": self.generator.get_state(),
            "counters": torch.stack((torch.tensor(self.total_steps), self.nan_count.cpu())),
        }
        return {k: v.clone() for k, v in own.items()} | {
            f"{part}.{k}": v for part, owner in self._parts().items() for k, v in owner.state_dict().items()
        }

    def _parts(self) -> dict[str, Any]:
        """In the order in which they are restored: model fields need to know the faults in force."""
        return {
            "faults": self.faults,
            "fields": self.fields,
            "scene": self.scene,
            "state": self.state,
            "command": self.command,
            "actions": self.actions,
            "events": self.events,
            "obs": self.observations,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes where `state_dict` was taken."""
        self.backend.restore(state["physics"].to(self.device))
        for part, owner in self._parts().items():
            prefix = part + "."
            owner.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.episode_step.copy_(state["episode_step"])
        self.rewards.sums.copy_(state["reward_sums"])
        self.encoder_bias.copy_(state["encoder_bias"])
        self.generator.set_state(state["rng"].cpu())
        self.total_steps = int(state["counters"][0])
        self.nan_count.fill_(int(state["counters"][1]))
