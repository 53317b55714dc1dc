"""Which dead pairs an oracle loses whose bank met nothing else (B3pairs), beside the pipeline's own (B3); films three.

`python scripts/lost_pairs.py PARTS PIPELINE ROOT [OUT]`: parts of both by `koboshi benchmark faults --seed 1`, its
`--pipeline` and `--root`; OUT is docs/media/lost_pairs.gif by default.
"""

from __future__ import annotations

import sys
from itertools import compress
from pathlib import Path

from koboshi import robots
from koboshi.bench.rollout import rollout
from koboshi.bench.suite import described, is_dead, joints_of, make_suite
from koboshi.bench.worlds import NOMINAL
from koboshi.envs.scene import visual_scene
from koboshi.errors import KoboshiError
from koboshi.faults import Scenario, Scenarios
from koboshi.stages import entrants
from koboshi.stages.film import trajectory
from koboshi.stages.parts import Wanted, load_part
from koboshi.tasks import make_task
from koboshi.view.gl import choose_gl
from koboshi.view.video import render_frames, save_gif

TASK, SEED, FILMED = "h1-walk", 1, 3
SECONDS, FROM_S, FRAMES_PER_S = 4.0, 1.5, 12
"""After the first onset to the end of a recording; of the film."""


def main(parts: str, pipeline: str, root: str, out: str = "docs/media/lost_pairs.gif") -> None:
    """Prints the pairs that both lose, and those that only one does; films some of the first."""
    choose_gl()
    task = make_task(TASK)
    robot = robots.find(task.env.robot)
    suite = make_suite(TASK, robot, task.evaluate.commands)
    episodes = suite.scenarios.episodes
    pairs = [len(joints_of(episode)) == 2 and is_dead(episode) for episode in episodes]
    lost: dict[str, set[Scenario]] = {}
    for name in ("B3", "B3pairs"):
        part = load_part(Wanted(SEED, name, NOMINAL).path(Path(parts)))
        if part["identity"]["suite"] != described(suite):
            raise KoboshiError(f"the parts in {parts} are of suite {part['identity']['suite']}, not {described(suite)}")
        survived = part["columns"]["survived"]
        lost[name] = {
            e for e, s in zip(compress(episodes, pairs), compress(survived, pairs), strict=True) if s is False
        }
    usual, alone = lost["B3"], lost["B3pairs"]
    both = sorted(usual & alone, key=joints_of)
    print(f"{sum(pairs)} dead pairs; B3 loses {len(usual)}, B3pairs {len(alone)}, both {len(both)}")
    for title, found in (("both lose", both), ("B3pairs saves", usual - alone), ("only B3 saves", alone - usual)):
        print(f"{title}: {'; '.join(sorted(' + '.join(joints_of(each)) for each in found)) or 'none'}")
    if not both:
        return
    shown = both[:: max(1, len(both) // FILMED)][:FILMED]
    seed = entrants.seed_of(task, pipeline, SEED, Path(root))
    scenarios = Scenarios(robot.name, 7, tuple(shown))
    oracle = entrants.ENTRANTS["B3pairs"].make(seed)
    recording = rollout(task.env, oracle, scenarios, SECONDS, world=NOMINAL, film=tuple(range(len(shown))))
    titles = [" + ".join(joints_of(each)) for each in shown]
    panels = [trajectory(recording, i, title, seed.stored.assignment) for i, title in enumerate(titles)]
    times = [FROM_S + i / FRAMES_PER_S for i in range(5 * FRAMES_PER_S)]
    print(save_gif(out, list(render_frames(visual_scene(task.env.scene, robot), panels, times, size=(520, 420)))))


if __name__ == "__main__":
    main(*sys.argv[1:5])
