"""What a rollout asks of the joints: peak torques of the healthy ones, and when a broken one is first needed."""

from __future__ import annotations

import torch
from torch import Tensor

from koboshi import robots
from koboshi.envs import Env
from koboshi.faults import KINDS, Scenarios
from koboshi.specialists.controller import Decision

LOADED = 0.05
"""A joint is loaded where the law of its healthy drive asks for more than this share of its effort limit."""
NO_KIND, NOT_ASKED = -1, -2
NONE = "none"
"""What a part says where no kind was believed."""
KIND_AFTER_S = 1.0
"""A controller that tells kinds apart is asked for them so long after an episode's last onset, s."""


class Strain:
    """Watches a rollout of N scenarios (`rollout(watch=…)`); J joints. What a robot does after its fall is left out.

    peak (N,): greatest |torque| / effort limit of the joints that never break, from the first onset on, sampled once
    a control step. first_load (N, J) int64: the control step in which a joint that is to break is first loaded, from
    its own onset on; −1 never. kind (N, J) int64: index into KINDS of the kind believed most, or NO_KIND;
    NOT_ASKED of who has fallen, and of a controller that tells no kinds apart.
    """

    def __init__(self, scenarios: Scenarios, step_dt: float, seconds: float, tells: bool) -> None:
        """`tells`: whether the controller tells kinds apart."""
        self._tells = tells
        robot = robots.find(scenarios.robot)
        n, j = len(scenarios.episodes), len(robot.joint_names)
        self._well = ~scenarios.faulty()
        self._from = torch.full((n, j), torch.iinfo(torch.int64).max)
        asked = [-1] * n
        for i, episode in enumerate(scenarios.episodes):
            for fault in episode.faults:
                at = fault.planned(step_dt)[0]
                self._from[i, robot.joint_id(fault.joint)] = at
                # The decision after so many seconds is the one before step `at` + that.
                asked[i] = max(asked[i], at + round(KIND_AFTER_S / step_dt))
        self._asked, self._steps_asked = torch.tensor(asked), set(asked)
        self._onset = scenarios.onset(step_dt)
        self._until = self._onset + round(seconds / step_dt)
        self._law = torch.stack([torch.from_numpy(x).float() for x in robot.law])
        self._alive = torch.ones(n, dtype=torch.bool)
        self._t = 0
        self.peak = torch.zeros(n)
        self.first_load = torch.full((n, j), -1)
        self.kind = torch.full((n, j), NOT_ASKED)

    def to(self, device: torch.device | str) -> Strain:
        """Moves all tensors, so that a GPU need not be waited for while it watches."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def __call__(self, env: Env, decision: Decision) -> None:
        if self._t == 0:
            self.to(env.device)
        if self._tells and self._t in self._steps_asked:
            self._ask_kind(decision)
        self._alive &= ~env.terminated
        control, position, velocity, limit = self._law
        target = env.ctrl[:, env.joints.actuator].float()
        asked = control * target + position * env.state.joint_pos + velocity * env.state.joint_vel
        counts = self._alive & (self._t < self._until)
        loads = (asked.abs() > LOADED * limit) & (self._t >= self._from) & counts[:, None] & (self.first_load < 0)
        self.first_load = torch.where(loads, self._t, self.first_load)
        share = (env.state.joint_torque.abs() / limit).masked_fill(~self._well, 0.0).amax(1)
        self.peak = torch.where(counts & (self._t >= self._onset), torch.maximum(self.peak, share), self.peak)
        self._t += 1

    def _ask_kind(self, decision: Decision) -> None:
        most, said = decision.route.belief.levels.unflatten(1, (len(KINDS), -1)).max(1)
        said = said.masked_fill(most <= 0, NO_KIND)
        asked = (self._asked == self._t) & self._alive
        self.kind = torch.where(asked[:, None], said, self.kind)
