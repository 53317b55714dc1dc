"""A controller in a loop of your own: `python examples/own_loop.py`.

The H1 that ships walks ahead; its left knee dies after three seconds. Printed are the alarms and who acts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from koboshi.bench.worlds import NOMINAL, in_world
from koboshi.envs import Env
from koboshi.faults import Fault, FaultsOnDemand
from koboshi.stages.play import shipped
from koboshi.tasks import make_task


def walk(seconds: float = 6.0) -> Iterator[str]:
    """What happens, a line each."""
    task = make_task("h1-walk")
    env = Env(replace(in_world(task.env, NOMINAL), num_envs=1, faults=FaultsOnDemand()))
    # Of a file of your own: koboshi.specialists.storage.StoredController(path, env).learned()
    controller = shipped(task).learned()
    obs, state = env.reset(seed=0), controller.initial_state(num_envs=1)
    everyone = first = torch.ones(1, dtype=torch.bool)  # first: whose observation is the first of an episode
    env.command.fix(everyone, torch.tensor([[0.6, 0.0, 0.0]]))  # m/s, m/s, rad/s
    before: list[str] = []
    for step in range(round(seconds / env.step_dt)):
        if step == round(3.0 / env.step_dt):
            env.faults.put(everyone, 0, Fault("left_knee"), env.episode_step)
        decision, state = controller.act(obs, first, state)
        alarm = decision.route.belief.alarm[0]
        now = [env.robot.joint_names[j] for j in alarm.nonzero().flatten().tolist()]
        if now != before:
            acts = "a specialist" if decision.route.member[0] >= 0 else "the healthy policy"
            yield f"{step * env.step_dt:.2f} s: alarms {', '.join(now) or 'none'}; {acts} acts"
        before = now
        outcome = env.step(decision.action)
        obs, first = outcome.obs, outcome.terminated | outcome.truncated
        if bool(outcome.terminated):
            yield f"{step * env.step_dt:.2f} s: it fell"


if __name__ == "__main__":
    for line in walk():
        print(line)
