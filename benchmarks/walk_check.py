"""Is a shipped controller's walk a walk? Joint by joint: tracking errors, and what the robot's whole collision model
finds that the stepped one, feet against the floor, leaves out. `python benchmarks/walk_check.py [TASK]`
"""

from __future__ import annotations

import sys

import mujoco
import numpy as np

from koboshi import robots
from koboshi.bench.metrics import aligned
from koboshi.bench.rollout import Recording, rollout
from koboshi.faults import sweep
from koboshi.stages.play import shipped
from koboshi.tasks import make_task

EPISODES_A_JOINT, SECONDS = 3, 8.0
EVERY = 4
"""Control steps between the poses that are looked at."""


def foreign_contacts(
    recording: Recording, row: int, model: mujoco.MjModel, data: mujoco.MjData, feet: set[str]
) -> dict[str, float]:
    """Pairs of bodies, feet on the floor left out -> deepest penetration after the onset, m."""
    deepest: dict[str, float] = {}
    end = min(int(recording.end[row]), len(recording.qpos))
    for t in range(int(recording.onset[row]), end, EVERY):
        data.qpos[:] = recording.qpos[t, row].numpy()
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        for contact in data.contact[: data.ncon]:
            names = {model.body(model.geom_bodyid[g]).name for g in (contact.geom1, contact.geom2)}
            if not ("world" in names and names & feet):
                pair = " in ".join(sorted(names))
                deepest[pair] = max(deepest.get(pair, 0.0), -float(contact.dist))
    return {pair: depth for pair, depth in deepest.items() if depth > 0.001}


def main(name: str = "h1-walk") -> None:
    """Prints a line a joint."""
    task = make_task(name)
    assert task.faults is not None
    robot = robots.find(task.env.robot)
    joints = task.faults.candidates(robot)
    scenarios = sweep(
        robot, joints, EPISODES_A_JOINT, seed=5, faults=task.faults, commands=task.evaluate.commands,
        onset_s=task.evaluate.onset_s,
    )  # fmt: skip
    filmed = tuple(range(len(scenarios.episodes)))
    recording = rollout(task.env, shipped(task).learned(), scenarios, SECONDS, film=filmed)
    spec = robot.load_spec()
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0, 0, 1))
    model = spec.compile()
    data, feet = mujoco.MjData(model), {foot.body for foot in robot.feet}
    error = (recording.command - aligned(recording, recording.velocity, SECONDS)).numpy()
    for joint in joints:
        rows = [i for i, e in enumerate(scenarios.episodes) if e.faults[0].joint == joint]
        vx, vy, yaw = np.sqrt((error[:, rows] ** 2).mean((0, 1)))
        found: dict[str, float] = {}
        for row in rows:
            for pair, depth in foreign_contacts(recording, row, model, data, feet).items():
                found[pair] = max(found.get(pair, 0.0), depth)
        contacts = ", ".join(f"{pair} {1000 * depth:.0f} mm" for pair, depth in found.items()) or "none"
        print(f"{joint:22} RMSE v_x {vx:.3f}, v_y {vy:.3f} m/s, yaw {yaw:.2f} rad/s  other contacts: {contacts}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
