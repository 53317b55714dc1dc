"""Makes a README's film from a shipped controller: one fault, with and without the switch.

`python scripts/readme_media.py [TASK] [FAULT] [OUT]`, by default h1-walk left_knee@3.0 docs/media/knee.gif.
"""

from __future__ import annotations

import sys

from koboshi import robots
from koboshi.bench.rollout import rollout
from koboshi.bench.worlds import NOMINAL
from koboshi.envs.scene import visual_scene
from koboshi.faults import Scenario, Scenarios
from koboshi.stages.evaluate import healthy_alone
from koboshi.stages.film import trajectory
from koboshi.stages.play import parse_fault, shipped
from koboshi.tasks import make_task
from koboshi.view.gl import choose_gl
from koboshi.view.video import render_frames, save_gif

COMMAND = (0.8, 0.0, 0.0)


def main(name: str = "h1-walk", text: str = "left_knee@3.0", out: str = "docs/media/knee.gif") -> None:
    """One scenario under the shipped controller and under the healthy policy alone, side by side."""
    choose_gl()
    task = make_task(name)
    stored, robot = shipped(task), robots.find(task.env.robot)
    fault = parse_fault(text, robot)
    scenarios = Scenarios(robot.name, 7, (Scenario((fault,), COMMAND, fault.onset_s),))
    healthy = healthy_alone(stored.healthy, len(robot.joint_names))
    panels = []
    for title, controller, table in (
        ("koboshi", stored.learned(), stored.assignment),
        ("without the switch", healthy, None),
    ):
        recording = rollout(task.env, controller, scenarios, 5.0, world=NOMINAL, detail=True, film=(0,))
        panels.append(trajectory(recording, 0, title, table))
    times = [fault.onset_s - 1.0 + i / 12 for i in range(60)]
    frames = render_frames(visual_scene(task.env.scene, robot), panels, times, size=(480, 360))
    print(save_gif(out, list(frames)))


if __name__ == "__main__":
    main(*sys.argv[1:4])
