"""Observation terms: `term(env, **params) -> (N, d)`.

Each says how it looks in the mirror (left and right swapped): `vector` (x, −y, z), `axial` (−x, y, −z),
`command` (v_x, −v_y, −ω_z), `joint` (the robot's joint mirror), `action` (the same for what the policy gives),
`feet` (left and right swapped), `scan` and `foot_scan` (rows of points from right to left), `same`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from koboshi.envs.env import Env

Term = Callable[..., Tensor]


def mirrored(kind: str) -> Callable[[Term], Term]:
    """Notes on a term how it mirrors."""

    def note(term: Term) -> Term:
        term.mirror = kind  # type: ignore[attr-defined]
        return term

    return note


@mirrored("vector")
def base_lin_vel(env: Env) -> Tensor:
    """(N, 3) linear velocity in the base frame, m/s."""
    return env.state.base_lin_vel


@mirrored("axial")
def base_ang_vel(env: Env) -> Tensor:
    """(N, 3) angular velocity in the base frame, rad/s."""
    return env.state.base_ang_vel


@mirrored("vector")
def projected_gravity(env: Env) -> Tensor:
    """(N, 3) direction of gravity in the base frame."""
    return env.state.projected_gravity


@mirrored("command")
def velocity_command(env: Env) -> Tensor:
    """(N, 3) commanded v_x, v_y (m/s) and yaw rate (rad/s)."""
    return env.command.value


@mirrored("joint")
def joint_pos(env: Env, sensed: bool = True, joints: tuple[str, ...] = (".*",)) -> Tensor:
    """(N, n) positions of joints (patterns) less the default pose, rad; `sensed`: through sensors that may be faulty.

    A wheel's angle grows without bound: leave it out.
    """
    pos = env.faults.sense(env.state.joint_pos) + env.encoder_bias if sensed else env.state.joint_pos
    offset = pos - env.default_joint_pos
    return offset if joints == (".*",) else offset[:, env.joint_ids(joints)]


@mirrored("joint")
def joint_vel(env: Env, sensed: bool = True) -> Tensor:
    """(N, J) joint velocities, rad/s; `sensed`: through sensors that may be faulty."""
    return env.faults.sense_rate(env.state.joint_vel) if sensed else env.state.joint_vel


@mirrored("joint")
def joint_torque(env: Env, sensed: bool = True) -> Tensor:
    """(N, J) torques at the joints, N·m; `sensed`: through sensors that may be faulty."""
    return env.faults.sense_torque(env.state.joint_torque) if sensed else env.state.joint_torque


@mirrored("joint")
def joint_effort(env: Env, sensed: bool = True) -> Tensor:
    """(N, J) `joint_torque` as shares of each joint's effort limit."""
    return joint_torque(env, sensed) / env.effort_limit


@mirrored("action")
def last_action(env: Env) -> Tensor:
    """(N, A) the action in force."""
    return env.actions.value


def sensor(env: Env, name: str) -> Tensor:
    """(N, d) a sensor of the robot's MJCF, in its own units and frame; the robot's `sensors` must list it.

    How it mirrors depends on where it sits: a task that mirrors wraps it in a term of its own that says so.
    """
    return env.sensor(name)


@mirrored("vector")
def external_force(env: Env) -> Tensor:
    """(N, 3) force that an event put on the base, in its frame, N."""
    return env.state.in_base_frame(env.external_force.float()[:, None])[:, 0]


@mirrored("same")
def base_height(env: Env) -> Tensor:
    """(N, 1) height above the ground, m."""
    return env.state.base_height[:, None]


@mirrored("scan")
def height_scan(env: Env, size: tuple[float, float] = (1.6, 1.0), resolution: float = 0.1) -> Tensor:
    """(N, P) height of the base above the ground under a grid of points around it, m, the grid turned with the robot
    (Isaac Lab's height scan, which takes 0.5 m off). By a look-up: it sees the ground, not the scene's other bodies."""
    return env.state.base_pos[:, 2:] - env.state.ground_scan(size, resolution)


@mirrored("scan")
def ray_scan(env: Env, size: tuple[float, float] = (1.6, 1.0), resolution: float = 0.1) -> Tensor:
    """(N, P) as `height_scan`, by rays, which meet other bodies too. From 1 m above the base; a ray that meets
    nothing within 10 m says that."""
    return env.scene.ray_scan(env.backend, env.state.base_pos, env.state.heading, size, resolution)


@mirrored("foot_scan")
def foot_scan(env: Env, size: tuple[float, float] = (0.2, 0.2), resolution: float = 0.1) -> Tensor:
    """(N, F·P) height of each foot above the ground under a grid of points around it, m; see `height_scan`."""
    pos = env.state.foot_pos
    heading = env.state.heading[:, None].expand(pos.shape[:2])
    return (pos[..., 2:] - env.scene.scan(pos, heading, size, resolution)).flatten(1)


@mirrored("feet")
def foot_height(env: Env) -> Tensor:
    """(N, F) height of each foot's point above the ground right under it, m."""
    return env.state.foot_height


@mirrored("feet")
def foot_contact(env: Env) -> Tensor:
    """(N, F) 1 where a foot touches the ground."""
    return env.state.foot_contact.float()


@mirrored("feet")
def foot_air_time(env: Env) -> Tensor:
    """(N, F) s in the air."""
    return env.state.air_time


@mirrored("joint_magnitude")
def fault_severity(env: Env) -> Tensor:
    """(N, J) the truth: severity in force, 0 healthy to 1 dead."""
    return env.faults.severity


@mirrored("joint_kinds")
def fault_levels(env: Env) -> Tensor:
    """(N, K·J) the truth: severity in force of each kind of fault, `KINDS`' order, of each joint."""
    return env.faults.levels.flatten(1)
