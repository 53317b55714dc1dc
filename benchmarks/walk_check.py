"""Is the shipped controller's walk a walk? Joint by joint: tracking errors, and what Menagerie's whole collision
model finds that the stepped one, feet against the floor, leaves out. `python benchmarks/walk_check.py`
"""

from __future__ import annotations

import mujoco
import numpy as np

from koboshi.bench.metrics import aligned
from koboshi.bench.rollout import Recording, rollout
from koboshi.faults import joint_sweep
from koboshi.robots import UNITREE_H1
from koboshi.stages.play import shipped
from koboshi.tasks import make_task

EPISODES_A_JOINT, SECONDS = 3, 8.0
EVERY = 4
"""Control steps between the poses that are looked at."""


def foreign_contacts(recording: Recording, row: int, model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, float]:
    """Pairs of bodies, feet on the floor left out -> deepest penetration after the onset, m."""
    deepest: dict[str, float] = {}
    end = min(int(recording.end[row]), len(recording.qpos))
    for t in range(int(recording.onset[row]), end, EVERY):
        data.qpos[:] = recording.qpos[t, row].numpy()
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        for contact in data.contact[: data.ncon]:
            names = sorted(model.body(model.geom_bodyid[g]).name for g in (contact.geom1, contact.geom2))
            if not ("world" in names and any("ankle" in name for name in names)):
                pair = " in ".join(names)
                deepest[pair] = max(deepest.get(pair, 0.0), -float(contact.dist))
    return {pair: depth for pair, depth in deepest.items() if depth > 0.001}


def main() -> None:
    """Prints a line a joint."""
    task = make_task("h1-walk")
    scenarios = joint_sweep(UNITREE_H1, UNITREE_H1.fault_candidates, EPISODES_A_JOINT, seed=5)
    filmed = tuple(range(len(scenarios.episodes)))
    recording = rollout(task.env, shipped(task).learned(), scenarios, SECONDS, film=filmed)
    spec = UNITREE_H1.load_spec()
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    model = spec.compile()
    data = mujoco.MjData(model)
    error = (recording.command - aligned(recording, recording.velocity, SECONDS)).numpy()
    for joint in UNITREE_H1.fault_candidates:
        rows = [i for i, e in enumerate(scenarios.episodes) if e.joint == joint]
        vx, _, yaw = np.sqrt((error[:, rows] ** 2).mean((0, 1)))
        found: dict[str, float] = {}
        for row in rows:
            for pair, depth in foreign_contacts(recording, row, model, data).items():
                found[pair] = max(found.get(pair, 0.0), depth)
        contacts = ", ".join(f"{pair} {1000 * depth:.0f} mm" for pair, depth in found.items()) or "none"
        print(f"{joint:22} v_x RMSE {vx:.3f} m/s  yaw rate RMSE {yaw:.2f} rad/s  other contacts: {contacts}")


if __name__ == "__main__":
    main()
