"""`koboshi ablate`: what is changed, how it is judged, and how it is ranked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from koboshi import config
from koboshi.envs.cfg import CurriculumTerm
from koboshi.envs.terms import curriculum
from koboshi.errors import KoboshiError
from koboshi.runs import resolve_run
from koboshi.stages import ablation
from koboshi.stages.ablation import Ablation, ablate, changes, ranking
from koboshi.stages.folders import task_of
from koboshi.tasks import make_task
from koboshi.tasks.task import TaskCfg

SMALL = [
    "env.num_envs=4", "agent.trainer.timesteps=4", "agent.trainer.rollout=2", "agent.minibatches=1", "agent.epochs=1",
    "agent.network.actor.hidden=[8]", "agent.network.critic_hidden=[8]",
]  # fmt: skip
TWO = ("nominal", "late")
Koboshi = Callable[..., Any]


def h1(*more: str) -> TaskCfg:
    return config.override(make_task("h1-walk"), list(more))


def plan(root: Path, *more: str, **changed: Any) -> Ablation:
    task = config.override(make_task("h1-walk"), [*SMALL, *more])
    return replace(Ablation(root / "none", task, root, terms=("push",), episodes=2, seconds=0.1), **changed)


def test_events_that_only_place_a_robot_are_no_randomisations() -> None:
    found = {change.name: change for change in changes(h1(), "events")}
    assert set(found) == {"friction", "mass", "com", "gains", "strength", "joint_friction", "push"}
    assert found["push"] == ("push", "env.events.push.active=false", ("env.events.push.params.velocity=0.4",))
    assert found["friction"].shrink == ("env.events.friction.params.range=[0.575, 1.025]",)  # of 0.35 to 1.25
    assert set(found["strength"].shrink) == {
        "env.events.strength.params.range=[0.925, 0.975]",
        "env.events.strength.params.shared=[0.7375, 0.9125]",
    }
    assert len(found["mass"].shrink) == 1, "what adds nothing has no range"
    off = {change.name for change in changes(h1("env.events.push.active=false", "env.events.com=null"), "events")}
    assert off == set(found) - {"push", "com"}


def test_each_change_is_a_setting_that_does_it() -> None:
    task = h1("env.actions.delay=[1,4]", "env.observations.policy.terms.joint_pos.delay=[0,1]")
    for group in ablation.GROUPS:
        for change in changes(task, group):
            for settings in ([change.remove], list(change.shrink)):
                if settings:
                    assert len(config.diff(task, config.override(task, settings))) == len(settings)
    delays = {change.name: change for change in changes(task, "delays")}
    assert delays["actions"].shrink == ("env.actions.delay=[1, 2]",)
    assert delays["policy.joint_pos"].shrink == (), "half of one step is none"
    noise = {change.name: change for change in changes(task, "noise")}
    assert {name.partition(".")[0] for name in noise} == {"policy"}, "what no network reads, or has none, is left out"
    terms = task.env.observations["policy"].terms
    assert noise["policy.joint_pos"].shrink == (
        f"env.observations.policy.terms.joint_pos.noise={terms['joint_pos'].noise / 2}",  # type: ignore[union-attr, operator]
    )


def test_every_variant_is_trained_and_walked_in_all_worlds_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "WALKED", TWO)
    whole = plan(tmp_path, modes=("remove", "shrink"), seeds=(1, 2))
    figures = ablate(whole)
    assert set(figures["variants"]) == {"unchanged", "without push", "half push"}
    for by_seed in figures["variants"].values():
        assert set(by_seed) == {"1", "2"}
        assert all(set(run["worlds"]) == set(TWO) for run in by_seed.values())
        assert all(each["survival_mean"] == 1.0 for run in by_seed.values() for each in run["worlds"].values())
    trained = task_of(resolve_run(whole.folder / "events" / "half-push-2"))
    assert len(config.diff(whole.task, trained)) == 2, "its seed and the push"
    assert trained.env.events["push"].params["velocity"] == 0.4  # type: ignore[union-attr]
    assert json.loads((whole.folder / "events" / "ablation.json").read_text()) == figures
    assert (whole.folder / "events" / "ablation.png").stat().st_size > 1000
    monkeypatch.setattr(ablation, "_judge", lambda *_: pytest.fail("judged again"))
    assert ablate(whole) == figures


def test_the_costliest_change_is_first() -> None:
    def run(*survival: float, vx: float | None = 0.1) -> dict[str, Any]:
        return {"worlds": {w: {"survival_mean": s, "vx_rmse": vx} for w, s in zip(("a", "b"), survival, strict=True)}}

    figures = {
        "variants": {
            "unchanged": {"1": run(1.0, 0.9), "2": run(1.0, 0.7)},
            "without idle": {"1": run(1.0, 0.9, vx=0.15), "2": run(1.0, 0.7, vx=0.15)},
            "without use": {"1": run(1.0, 0.5), "2": run(0.8, 0.7)},
            "without harm": {"1": run(1.0, 1.0), "2": run(1.0, 0.8)},
            "without legs": {"1": run(0.0, 0.0, vx=None), "2": run(0.0, 0.0, vx=None)},
            "half idle": {"1": run(1.0, 0.9), "2": run(1.0, 0.7)},
        }
    }
    found = ranking(figures)
    assert [loss.name for loss in found] == [
        "without legs", "without use", "without idle", "half idle", "without harm",
    ]  # fmt: skip
    assert found[0].vx_rmse is None
    use = found[1]
    assert use.survival == pytest.approx((0.15, 0.1, 0.2))  # (0.0 + 0.4) / 2 and (0.2 + 0.0) / 2
    assert use.by_world == pytest.approx({"a": 0.1, "b": 0.2}) and use.worst == "b"
    assert found[2].vx_rmse == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group": "event"}, "no group of randomisations 'event'; did you mean 'events'"),
        ({"terms": ("pus",)}, "no randomisation among its events 'pus'; did you mean 'push'"),
        ({"modes": ("shrnk",)}, "no way of ablating 'shrnk'; did you mean 'shrink'"),
        ({"group": "delays", "terms": (), "more": ["env.actions.delay=[0,0]"]}, "has no delays in force to ablate"),
        ({"group": "delays", "terms": ("actions",), "modes": ("shrink",), "more": ["env.actions.delay=[0,1]"]},
         "nothing of actions can be made smaller"),
        ({"episodes": 0}, "--episodes"),
    ],
)  # fmt: skip
def test_what_cannot_be_ablated(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    more = changed.pop("more", [])
    with pytest.raises(KoboshiError, match=message):
        ablate(plan(tmp_path, *more, **changed))
    assert not any(tmp_path.iterdir())


def test_what_cannot_begin_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    """A curriculum of events has nothing left to do without the only one."""
    alone = plan(tmp_path, *(f"env.events.{c.name}=null" for c in changes(h1(), "events") if c.name != "push"))
    grow = {"events": CurriculumTerm(curriculum.grow_events)}
    task = replace(alone.task, env=replace(alone.task.env, curriculum=grow))
    with pytest.raises(KoboshiError, match="'without push' cannot be trained: curriculum grow_events has no effect"):
        ablate(replace(alone, task=task))
    assert not any(tmp_path.iterdir())


def test_the_verb(koboshi: Koboshi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "WALKED", TWO)
    root = ["--root", str(tmp_path)]
    done = koboshi("train", "h1-walk", "--name", "r", *root, *SMALL)
    assert done.code == 0, done.err
    done = koboshi("ablate", "h1-walk/r", *root, "--term", "com", "--episodes", "1", "agent.trainer.timesteps=2")
    assert done.code == 0 and "without com" in done.out, done.err
    rows = (tmp_path / "h1-walk" / "ablation" / "events" / "without-com-1" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 1, "its own budget, of one iteration"
    load = ["--load", "h1-walk/r"]
    done = koboshi("ablate", "h1-walk/r", *root, "--term", "com", *load)
    assert done.code == 2 and "began with nothing learnt: --load must say the same" in done.err
    done = koboshi("train", "h1-walk", "--name", "later", *root, *load, *SMALL)
    assert done.code == 0, done.err
    done = koboshi("ablate", "h1-walk/later", *root, "--term", "com", "--name", "b")
    assert done.code == 2 and "began with weights of a file" in done.err
    done = koboshi("ablate", "h1-walk/later", *root, "--term", "com", "--name", "b", "--episodes", "1", *load)
    made = json.loads((tmp_path / "h1-walk" / "b" / "unchanged-1" / "made_from.json").read_text())
    assert done.code == 0 and made["load"], "each begins where the run began"
