"""Makes docs/media/knee.gif from the shipped controller: python scripts/readme_media.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from koboshi.bench.rollout import rollout
from koboshi.faults import Scenario, Scenarios
from koboshi.robots import ROBOTS, visual_spec
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import HealthyRouter
from koboshi.stages import evaluate
from koboshi.stages.film import trajectory
from koboshi.tasks import make_task
from koboshi.view.gl import choose_gl
from koboshi.view.video import render_frames, save_gif

ASSET = Path("src/koboshi/assets/h1_walk/controller.safetensors")
SCENARIO = Scenario("left_knee", "torque_loss", 1.0, 3.0, (0.8, 0.0, 0.0))


def main() -> None:
    """One scenario under the shipped controller and under the healthy policy alone, side by side."""
    choose_gl()
    task = make_task("h1-walk")
    stored = evaluate.load(ASSET, task)
    scenarios = Scenarios(task.env.robot, 7, (SCENARIO,))
    panels = []
    healthy = Controller(stored.healthy, None, HealthyRouter())
    for title, controller, table in (
        ("koboshi", stored.learned(), stored.assignment),
        ("without the switch", healthy, None),
    ):
        recording = rollout(task.env, controller, scenarios, 5.0, detail=True, film=(0,))
        panel = trajectory(recording, 0, 0, title, table)
        panels.append(replace(panel, probability=panel.probability if table is not None else None))
    times = [2.0 + i / 12 for i in range(60)]
    frames = render_frames(visual_spec(ROBOTS[task.env.robot]), panels, times, size=(480, 360))
    print(save_gif("docs/media/knee.gif", list(frames)))


if __name__ == "__main__":
    main()
