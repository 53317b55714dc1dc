"""How many single faults of the benchmark change anything that a sensor can tell from its own noise within a second.

`python scripts/felt_faults.py [TASK]`: each episode is walked twice by the shipped healthy policy, with its fault and
without, from the same state and without noise. A fault is felt if in the second from its onset on some sensor shows a
difference above the half-width of its noise. What is less could only be told from many rows together.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import Tensor

from koboshi import robots
from koboshi.bench.rollout import scenario_cfg
from koboshi.bench.suite import SEVERITIES, joints_of, make_suite
from koboshi.bench.worlds import NOMINAL
from koboshi.envs import Env
from koboshi.envs.cfg import ObsTerm
from koboshi.faults import KINDS, Scenarios
from koboshi.stages.play import shipped
from koboshi.tasks import TaskCfg, make_task

WITHIN_S = 1.0


@torch.no_grad()
def senses(task: TaskCfg, scenarios: Scenarios) -> Tensor:
    """(T, N, D) what detectors hear of the healthy policy's walk, without noise."""
    cfg = scenario_cfg(task.env, scenarios, NOMINAL)
    quiet = {name: replace(group, noise=False) for name, group in cfg.observations.items()}
    env = Env(replace(cfg, observations=quiet))
    healthy, reset = shipped(task).healthy, torch.ones(env.num_envs, dtype=torch.bool)
    obs, state, rows = env.reset(scenarios.seed), healthy.initial_state(env.num_envs, env.device), []
    for _ in range(scenarios.steps(env.step_dt, WITHIN_S)):
        rows.append(obs["detector"].clone())
        action, state = healthy.act(obs, state, reset)
        step = env.step(action)
        obs, reset = step.obs, step.terminated
    return torch.stack([*rows, obs["detector"].clone()])


def half_widths(task: TaskCfg) -> Tensor:
    """(D,) of the noise; infinite where a number is no sensor's."""
    env = Env(replace(task.env, num_envs=1, faults=None))
    terms: dict[str, ObsTerm] = {}
    for group in ("policy", "detector"):
        terms |= {name: term for name, term in task.env.observations[group].terms.items() if term is not None}
    parts = []
    for entry in env.layouts["detector"]:
        noise = torch.tensor(terms[entry.name].noise).expand(entry.width)
        parts.append(torch.where(noise > 0, noise, torch.inf))
    return torch.cat(parts)


def main(name: str = "h1-walk") -> None:
    """Prints the share of faults that are felt, by kind and severity, and of all."""
    task = make_task(name)
    suite = make_suite(name, robots.find(task.env.robot), task.evaluate.commands)
    episodes = tuple(e for e in suite.scenarios.episodes if len(joints_of(e)) == 1 and e.faults[0].period_s is None)
    broken = replace(suite.scenarios, episodes=episodes)
    well = replace(broken, episodes=tuple(replace(each, faults=()) for each in episodes))
    apart = ((senses(task, broken) - senses(task, well)).abs() / half_widths(task)).amax(2)
    first, window = broken.onset(task.env.step_dt), round(WITHIN_S / task.env.step_dt)
    felt = torch.stack([apart[t : t + window + 1, i].amax() > 1 for i, t in enumerate(first.tolist())])
    print("| felt within a second, % |", " | ".join(f"{s:g}" for s in SEVERITIES), "|")
    print("|---" * (1 + len(SEVERITIES)) + "|")
    for kind in KINDS:
        shares = []
        for severity in SEVERITIES:
            here = torch.tensor([(e.faults[0].kind, e.faults[0].severity) == (kind, severity) for e in episodes])
            shares.append(100 * float(felt[here].float().mean()))
        print(f"| {kind.replace('_', ' ')} |", " | ".join(f"{share:.0f}" for share in shares), "|")
    print(f"of all {len(felt)}: {100 * felt.float().mean():.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:2])
