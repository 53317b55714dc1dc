"""A controller on frozen scenarios: what happened, step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from koboshi.bench.worlds import in_world
from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm, SceneCfg
from koboshi.faults import Scenarios
from koboshi.specialists.controller import Controller, Decision
from koboshi.specialists.routing import Route
from koboshi.terrain import GridCfg


@dataclass(frozen=True)
class Recording:
    """T control steps of N scenarios; rows after an episode's fall mean nothing. Row t is after step t.

    Everything lies on the CPU. J joints, F feet.
    """

    scenarios: Scenarios
    step_dt: float
    """s."""
    onset: Tensor
    """(N,) control step from which on the episode counts: that of its first fault."""
    end: Tensor
    """(N,) the control step in which the episode fell; T where it never did."""
    command: Tensor
    """(T, N, 3) m/s, m/s, rad/s: in force in step t. Where a heading is held the yaw rate follows from it."""
    velocity: Tensor
    """(T, N, 3) v_x, v_y in the yaw frame (m/s), yaw rate (rad/s)."""
    pose: Tensor
    """(T, N, 3) the base's x, y (m) and heading (rad) in the world."""
    target: Tensor
    """(T, N) heading asked for, rad in the world; NaN where none is held."""
    contact: Tensor
    """(T, N, F) bool: the foot touches the ground."""
    member: Tensor
    """(T, N) int16: who acted in step t, −1 the healthy policy."""
    qpos: Tensor
    """(T, n, nq) of the scenarios `filmed`."""
    filmed: tuple[int, ...] = ()
    """Which scenarios `qpos` shows."""
    probability: Tensor | None = None
    """(T, N, J) the router's belief before step t, where asked for."""
    alarm: Tensor | None = None
    """(T, N, J) bool: the joints that it called broken before step t, where asked for."""
    decision_s: float | None = None
    """Seconds spent deciding, all scenarios in one batch; None where a device decides while we go on."""


def scenario_cfg(cfg: EnvCfg, scenarios: Scenarios, world: str | None = None) -> EnvCfg:
    """The task on frozen scenarios: their faults and constant commands, episodes from their first step, no time-out, on
    all levels of the ground at random.

    Without a `world` (of `worlds.WORLDS`) it is the task's own: events that strike in mid-episode (pushes) are out, for
    a scenario says all that happens. Those at startup and at a reset stay: they are the world and how a robot starts.
    """
    if world is None:
        cfg = replace(cfg, events=kept_events(cfg.events))
    else:
        cfg = in_world(cfg, world)
    return replace(
        cfg,
        scene=on_all_levels(cfg.scene),
        num_envs=len(scenarios.episodes),
        faults=scenarios,
        terminations={n: term for n, term in cfg.terminations.items() if term is not None and not term.time_out},
        curriculum={},
        random_initial_length=False,
    )


def on_all_levels(scene: SceneCfg) -> SceneCfg:
    """The same, where each robot begins on a random level of a grid."""
    ground = scene.ground
    return replace(scene, ground=replace(ground, first_level=None)) if isinstance(ground, GridCfg) else scene


def kept_events(events: Mapping[str, EventTerm | None]) -> dict[str, EventTerm | None]:
    """Those at startup and at a reset, without what strikes in mid-episode."""
    return {name: term for name, term in events.items() if term is not None and term.mode != "interval"}


def rollout(
    cfg: EnvCfg,
    controller: Controller,
    scenarios: Scenarios,
    seconds: float,
    *,
    world: str | None = None,
    detail: bool = False,
    film: tuple[int, ...] = (),
    report: Callable[[int], None] | None = None,
    begin: Callable[[Env], None] | None = None,
    watch: Callable[[Env, Decision], None] | None = None,
) -> Recording:
    """Runs all scenarios side by side, in the task's own world or a named one, until `seconds` after the latest onset.

    `detail` also records belief and alarms; `film` the poses of these scenarios; `begin` may put robots elsewhere
    before they are reset; `watch` sees the environment after each step, and what was decided before it. Columns stay
    where the environment is until the end, so that a GPU is never asked to wait.
    """
    env = Env(scenario_cfg(cfg, scenarios, world))
    if begin is not None:
        begin(env)
    steps = scenarios.steps(env.step_dt, seconds)
    obs = env.reset(scenarios.seed)
    state = controller.initial_state(env.num_envs, env.device)
    reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    end = torch.full((env.num_envs,), steps, device=env.device)
    columns = _Columns(env, torch.tensor(film, dtype=torch.int64, device=env.device), detail)
    decision_s = 0.0
    for t in range(steps):
        began = time.perf_counter()
        decision, state = controller.act(obs, reset, state)
        decision_s += time.perf_counter() - began
        columns.before(decision.route)
        step = env.step(decision.action)
        columns.after()
        if watch is not None:
            watch(env, decision)
        end = torch.where(step.terminated & (end == steps), t, end)
        obs, reset = step.obs, step.terminated
        if report is not None:
            report(t + 1)
    env.settle()
    return Recording(
        scenarios=scenarios,
        step_dt=env.step_dt,
        onset=scenarios.onset(env.step_dt),
        end=end.cpu(),
        filmed=film,
        decision_s=decision_s if env.device.type == "cpu" else None,
        **columns.stacked(),
    )


class _Columns:
    """Rows gathered on the environment's device."""

    def __init__(self, env: Env, film: Tensor, detail: bool) -> None:
        self._env, self._film, self._detail = env, film, detail
        self._rows: dict[str, list[Tensor]] = {
            name: [] for name in ("command", "target", "member", "velocity", "pose", "contact", "qpos")
        }
        if detail:
            self._rows |= {"probability": [], "alarm": []}

    def before(self, route: Route) -> None:
        """What was decided."""
        rows, command = self._rows, self._env.command
        rows["command"].append(command.value.clone())
        rows["target"].append(command.heading.masked_fill(~command.holds_heading, math.nan))
        rows["member"].append(route.member.to(torch.int16))
        if self._detail:
            rows["probability"].append(route.belief.probability.clone())
            rows["alarm"].append(route.belief.alarm.clone())

    def after(self) -> None:
        """What came of it."""
        state, rows = self._env.state, self._rows
        rows["velocity"].append(torch.cat((state.lin_vel_yaw, state.base_ang_vel[:, 2:]), dim=1))
        rows["pose"].append(torch.cat((state.base_pos[:, :2], state.heading[:, None]), dim=1))
        rows["contact"].append(state.foot_contact.clone())
        rows["qpos"].append(self._env.qpos[self._film])

    def stacked(self) -> dict[str, Any]:
        return {name: torch.stack(rows).cpu() for name, rows in self._rows.items()}
