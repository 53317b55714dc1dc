"""A controller on frozen scenarios: what happened, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from koboshi.envs import Env, EnvCfg
from koboshi.envs.cfg import EventTerm
from koboshi.envs.terms import events
from koboshi.faults import Scenarios
from koboshi.specialists.controller import Controller


@dataclass(frozen=True)
class Recording:
    """T control steps of N scenarios; rows after an episode's fall mean nothing. Row t is after step t."""

    scenarios: Scenarios
    step_dt: float
    onset: Tensor
    """(N,) control step at which the fault acts first."""
    end: Tensor
    """(N,) control steps until the episode's fall; T where it never fell."""
    command: Tensor
    """(N, 3)."""
    velocity: Tensor
    """(T, N, 3) v_x, v_y in the yaw frame (m/s), yaw rate (rad/s)."""
    contact: Tensor
    """(T, N, 2) bool."""
    joint: Tensor
    """(T, N) int8: who acted in step t, −1 the healthy policy."""
    probability: Tensor | None
    """(T, N, J) the router's belief before step t, where asked for."""
    severity: Tensor | None
    """(T, N, J) the truth in the observation before step t, where asked for."""
    qpos: Tensor
    """(T, n, nq) of the scenarios that were to be filmed."""
    decision_s: float = 0.0
    """Seconds spent deciding, all scenarios in one batch."""


def scenario_cfg(cfg: EnvCfg, scenarios: Scenarios) -> EnvCfg:
    """The task on frozen scenarios: constant commands, no time-out, no random pushes or faults."""
    follow = EventTerm(events.follow_scenarios, params={"scenarios": scenarios})
    kept = {name: term for name, term in cfg.events.items() if name in ("reset_base", "reset_joints")}
    ends = {name: term for name, term in cfg.terminations.items() if term is not None and not term.time_out}
    return replace(
        cfg,
        num_envs=len(scenarios.episodes),
        events=kept | {"follow_scenarios": follow},
        terminations=dict(ends),
        curriculum={},
    )


def rollout(
    cfg: EnvCfg,
    controller: Controller,
    scenarios: Scenarios,
    seconds: float,
    *,
    detail: bool = False,
    film: tuple[int, ...] = (),
    report: Callable[[int], None] | None = None,
) -> Recording:
    """Runs all scenarios side by side until `seconds` after the latest onset."""
    env = Env(scenario_cfg(cfg, scenarios))
    onset = scenarios.onset(env.step_dt)
    steps = scenarios.steps(env.step_dt, seconds)
    obs = env.reset(scenarios.seed)
    state = controller.initial_state(env.num_envs, env.device)
    reset = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    end = torch.full((env.num_envs,), steps, device=env.device)
    decision_s = 0.0
    columns: dict[str, list[Tensor]] = {n: [] for n in ("velocity", "contact", "joint", "p", "severity", "qpos")}
    for t in range(steps):
        began = time.perf_counter()
        decision, state = controller.act(obs, reset, state)
        decision_s += time.perf_counter() - began
        if detail:
            columns["p"].append(decision.route.probability.clone())
            columns["severity"].append(obs["fault"].clone())
        step = env.step(decision.action)
        columns["joint"].append(decision.route.joint.to(torch.int8))
        columns["velocity"].append(torch.cat((env.state.lin_vel_yaw, env.state.base_ang_vel[:, 2:]), dim=1))
        columns["contact"].append(env.state.foot_contact.clone())
        columns["qpos"].append(env.qpos[list(film)].clone())
        end = torch.where(step.terminated & (end == steps), t, end)
        obs, reset = step.obs, step.terminated
        if report is not None:
            report(t + 1)
    stacked = {name: torch.stack(values).cpu() if values else None for name, values in columns.items()}
    velocity, contact, joint, qpos = (stacked[n] for n in ("velocity", "contact", "joint", "qpos"))
    assert velocity is not None and contact is not None and joint is not None and qpos is not None
    return Recording(
        scenarios, env.step_dt, onset, end.cpu(), scenarios.commands(), velocity, contact, joint,
        stacked["p"], stacked["severity"], qpos, decision_s,
    )  # fmt: skip
