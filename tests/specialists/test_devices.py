"""Off the CPU nothing is read back and no tensors mix: on the meta device, which has no numbers, either fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bodies import GO2, ears_of, heard, make_policies, mirrors
from torch import Tensor

from koboshi.detect import AlarmCfg, Reading
from koboshi.faults import KINDS
from koboshi.nets.state_tree import leaves
from koboshi.specialists.assignment import assign
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.env import SpecialistEnv
from koboshi.specialists.routing import DetectorRouter, HealthyRouter, OracleRouter, Router
from koboshi.vec_env import ActionSpace, Obs, ObsSpec, Step

META, N, J = torch.device("meta"), 12, 12
PAIRS = assign(GO2, "mirrored_pair")
MIRROR = mirrors(GO2, {"policy": 6, "critic": 4})


class Ears:
    tells = False
    spec = ears_of(GO2)

    def initial(self, num_envs: int) -> Tensor:
        return torch.zeros(num_envs, J, device=META)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        assert reset is not None, "whether there is one was asked for"
        return heard(obs + hidden), hidden.masked_fill(reset[:, None], 0.0)


class World:
    num_envs, device, action_space = N, META, ActionSpace(J)
    obs_spec = {
        name: ObsSpec((d,)) for name, d in {"policy": 6, "critic": 4, "belief": len(KINDS) * J, "detector": J}.items()
    }

    def reset(self, seed: int) -> Obs:
        return {group: torch.zeros(N, *spec.shape, device=META) for group, spec in self.obs_spec.items()}

    def step(self, action: Tensor) -> Step:
        assert action.device == META
        no = torch.zeros(N, dtype=torch.bool, device=META)
        return Step(self.reset(0), no.float(), no, no, self.reset(0), {"valid": ~no})


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize(
    "router",
    [HealthyRouter(J), OracleRouter(PAIRS, GO2, 0.02, (0.0, 0.1)), DetectorRouter(Ears(), AlarmCfg(), PAIRS, GO2)],
    ids=lambda router: type(router).__name__,
)
def test_nothing_is_read_back(router: Router, remembers: bool) -> None:
    healthy = make_policies(1, {"policy": 6}, J, remembers).to(META).single()
    bank = SpecialistBank(make_policies(6, {"policy": 6}, J, remembers).to(META), PAIRS, MIRROR)
    controller, reset = Controller(healthy, bank, router), torch.ones(N, dtype=torch.bool, device=META)
    state: Any = controller.initial_state(N, META)
    for _ in range(2):
        decision, state = controller.act(World().reset(0), reset, state)
        assert all(x.device == META for x in leaves((decision, state)))
    env = SpecialistEnv(World(), healthy, PAIRS, router, ("policy", "critic"), MIRROR)
    env.reset(0)
    for _ in range(2):
        step = env.step(torch.zeros(N, J, device=META))
        assert step.extras["valid"].device == META
    assert env.falls_per_s(0.02).device == META
