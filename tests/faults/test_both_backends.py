"""Every kind of fault does on MuJoCo Warp what it does on MuJoCo."""

from __future__ import annotations

import os
from dataclasses import replace

import torch
import worlds
from torch import Tensor

from koboshi.envs import Env
from koboshi.faults import KINDS, Fault
from koboshi.robots import UNITREE_H1

KNEE = UNITREE_H1.joint_id("left_knee")
STEPS, ONSET, END = 12, 4, 10
POSITION, TORQUE = 12 + KNEE, 69 + KNEE
"""Where the detector's observations have the knee's."""
CLOSE = torch.tensor([0.01, 0.01, 8.0])
"""How far both backends may lie apart: rad, rad, N·m."""


def walked(backend: str, broken: bool) -> Tensor:
    """(3, T, N) of the knee: what the encoder shows, the truth, and the torque that is measured; a robot a kind."""
    faults = [[Fault("left_knee", kind, 0.8, 0.02 * ONSET, 0.02 * (END - ONSET))] for kind in KINDS]
    cfg = worlds.scripted(worlds.endless(worlds.clean(worlds.h1())), *(f if broken else [] for f in faults))
    device = os.environ.get("KOBOSHI_TEST_DEVICE", "cpu") if backend == "warp" else "cpu"
    env = Env(replace(cfg, sim=replace(cfg.sim, backend=backend, device=device)))
    env.reset(0)
    rows = []
    for t in range(STEPS):
        action = torch.zeros(len(KINDS), 19, device=env.device)
        action[:, KNEE] = 1.5 if t % 6 < 3 else -1.0
        heard = env.step(action).obs["detector"]
        rows.append(torch.stack((heard[:, POSITION], env.state.joint_pos[:, KNEE], heard[:, TORQUE])).cpu().float())
    return torch.stack(rows, 1)


def test_faults_are_the_same_on_both_backends() -> None:
    cpu, warp, well = walked("cpu", True), walked("warp", True), walked("cpu", False)
    apart = (warp - cpu).abs().amax((1, 2))
    assert (apart < CLOSE).all(), apart
    assert torch.equal(cpu[:, :ONSET], well[:, :ONSET])
    # Each changes something by more than the backends' difference may hide.
    changed = ((cpu - well).abs().amax(1) / (3 * CLOSE[:, None])).amax(0)
    assert (changed > 1).all(), dict(zip(KINDS, changed.tolist(), strict=True))
