"""Step responses against what a textbook says of a damped oscillator."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from biped import biped
from koboshi.robots import PositionActuator, Robot, TorqueActuator, VelocityActuator
from koboshi.robots.step_response import StepResponse, step_responses

RAMP = np.linspace(0.0, 1.5, 301)


def oscillator(frequency: float, damping: float, final: float = 1.0) -> StepResponse:
    omega, ratio = 2 * math.pi * frequency, math.sqrt(1 - damping**2)
    phase = omega * ratio * RAMP
    value = 1 - np.exp(-damping * omega * RAMP) * (np.cos(phase) + damping / ratio * np.sin(phase))
    return StepResponse("joint", RAMP, final * value)


@pytest.mark.parametrize("final", [1.0, 0.8])
def test_figures_of_a_damped_oscillator(final: float) -> None:
    """Overshoot exp(−π ζ / √(1 − ζ²)); the envelope exp(−ζ ω t) leaves 10 % at 0.61 s."""
    found = oscillator(3.0, 0.2, final)
    assert found.final == pytest.approx(final, abs=0.01)
    assert found.overshoot == pytest.approx(math.exp(-math.pi * 0.2 / math.sqrt(0.96)), abs=0.02)
    assert found.frequency_hz == pytest.approx(3.0 * math.sqrt(0.96), rel=0.05)
    assert 0.45 < found.settling_s < 0.62


def test_figures_of_what_creeps_and_of_what_never_comes_to_rest() -> None:
    creep = StepResponse("joint", RAMP, 1 - np.exp(-RAMP / 0.2))  # 10 % are left at 0.2 ln 10 = 0.46 s
    assert (creep.overshoot, creep.frequency_hz) == (pytest.approx(0.0, abs=0.01), None)
    assert creep.settling_s == pytest.approx(0.46, abs=0.02)
    assert oscillator(2.0, 0.001).settling_s == math.inf
    still = StepResponse("joint", RAMP, 0 * RAMP)
    assert (still.final, still.overshoot, still.settling_s) == (0.0, 0.0, 0.0)


SPINNER = """
<mujoco>
  <worldbody>
    <body name="base"><freejoint/><geom size=".1"/>
      <body name="arm"><joint name="spin" axis="0 0 1" armature=".1"/><geom size=".01" pos=".5 0 0" mass="2"/></body>
    </body>
  </worldbody>
</mujoco>
"""


def spinner(actuator: PositionActuator | VelocityActuator | TorqueActuator) -> Robot:
    return Robot(
        name="spinner", load_spec=lambda: mujoco.MjSpec.from_string(SPINNER), actuators={"spin": actuator},
        default_pose={}, base_body="base", base_height=1.0, feet=(), group_patterns={"all": ("spin",)},
    )  # fmt: skip


def test_a_joint_answers_as_its_inertia_and_gains_say() -> None:
    """Inertia 2 · 0.5² + 0.1 kg·m² (and the ball's own 8e-5); ω² = kp / I, 2 ζ ω = kd / I."""
    inertia, omega, damping = 0.60008, 2 * math.pi * 2.0, 0.3
    gains = PositionActuator(stiffness=inertia * omega**2, damping=2 * damping * omega * inertia, effort_limit=100.0)
    (found,) = step_responses(spinner(gains))
    exact = oscillator(2.0, damping)
    assert found.joint == "spin"
    np.testing.assert_allclose(found.value, exact.value, atol=0.03)  # the integrator damps a little
    assert found.frequency_hz == pytest.approx(exact.frequency_hz, rel=0.05)


def test_a_wheel_answers_in_velocity_and_a_torque_not_at_all() -> None:
    (found,) = step_responses(spinner(VelocityActuator(damping=3.0, effort_limit=100.0)))
    np.testing.assert_allclose(found.value, 1 - np.exp(-found.time * 3.0 / 0.60008), atol=0.02)
    assert step_responses(spinner(TorqueActuator(effort_limit=1.0))) == []


def test_the_step_stays_within_the_range() -> None:
    """A knee at its upper end is asked to come back, and does."""
    found = {response.joint: response for response in step_responses(biped(default_pose={".*_knee": 0.95}))}
    assert 0.9 < found["left_knee"].final < 1.1
