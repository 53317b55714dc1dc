"""`koboshi compare estimators` and `koboshi benchmark ground`: runs that go on, figures that are measured once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from koboshi import config
from koboshi.errors import KoboshiError
from koboshi.stages import estimators
from koboshi.stages.estimators import Comparison, compare, settings, variant_row
from koboshi.tasks import make_task
from koboshi.tasks.task import TaskCfg
from koboshi.view.gl import choose_gl

_GONE = ("slope_up", "slope_down", "rough_slope_down", "stairs_down", "boxes")
SMALL = [
    "env.num_envs=4", "env.scene.ground.levels=2", "env.scene.ground.columns=2",
    *(f"env.scene.ground.types.{name}=null" for name in _GONE),
    "agent.trainer.timesteps=6", "agent.trainer.rollout=2", "agent.trainer.checkpoint_interval=1",
    "agent.network.actor.hidden=[8]", "agent.network.critic_hidden=[8]",
]  # fmt: skip
_ALONE = ["env.observations.policy.history_length=1", "env.observations.policy.newest_first=false"]
Koboshi = Callable[..., Any]


def task(*more: str) -> TaskCfg:
    return config.override(make_task("go2-rough"), [*SMALL, *more])


def plan(root: Path, *variants: str, **changes: object) -> Comparison:
    return replace(Comparison(task(), root, robots=1, seconds=0.2, seeds=(1,), variants=variants), **changes)  # type: ignore[arg-type]


def test_all_variants_learn_as_many_steps_and_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan(tmp_path, *estimators.VARIANTS)
    figures = compare(whole)
    assert tuple(figures["variants"]) == estimators.VARIANTS and figures["seeds"] == [1]
    for variant, by_seed in figures["variants"].items():
        run = by_seed["1"]
        assert run["steps"] == [8, 16, 24], variant  # of 4 environments, RMA's teacher and student together
        assert len(run["level"]) == 3 and set(run["level_by_type"]) == {"rough_slope_up", "stairs_up"}
        assert set(run["estimate"]) == {
            "plain": set(), "frames": set(), "rma": set(), "him": {"base_lin_vel"}, "dreamwaq": {"base_lin_vel"},
            "est": {"base_lin_vel", "foot_height", "foot_contact"},
        }[variant]  # fmt: skip
        assert set(run["crossing"]["types"]) == {"rough_slope_up", "stairs_up"}
    assert json.loads((whole.folder / "estimators.json").read_text()) == figures
    assert (whole.folder / "estimators.png").stat().st_size > 1000
    # Again: nothing is measured anew, for neither the policies nor the test changed.
    monkeypatch.setattr(estimators, "estimation", lambda *_: pytest.fail("measured again"))
    assert compare(whole) == figures


def test_another_test_is_measured_anew_and_another_training_is_refused(tmp_path: Path) -> None:
    first = compare(plan(tmp_path, "plain"))["variants"]["plain"]["1"]
    longer = compare(plan(tmp_path, "plain", seconds=0.3))["variants"]["plain"]["1"]
    assert longer["crossing"]["scenario"]["seconds"] == 0.3 != first["crossing"]["scenario"]["seconds"]
    assert longer["steps"] == first["steps"] and longer["seconds"] == first["seconds"]
    with pytest.raises(KoboshiError, match="plain-1 was made with other settings .*gamma"):
        compare(plan(tmp_path, "plain", task=task("agent.gamma=0.9")))


def test_each_variants_settings() -> None:
    rough = task()
    plain = config.override(rough, settings(rough, "plain"))
    assert plain.env.observations["policy"].history_length == 1  # type: ignore[union-attr]
    for variant in estimators.VARIANTS[1:]:
        changed = config.override(rough, settings(rough, variant))
        assert changed.env == rough.env
        assert changed.agent.network.actor.hidden == (8,)  # type: ignore[union-attr]
    assert config.override(rough, settings(rough, "rma")).agent.network.actor.groups == ("policy",)


def test_a_students_worlds_differ_for_all_where_its_teachers_did() -> None:
    rows = [{"curriculum/events": 0.1}, {"terrain/level": 2.0, "curriculum/events": 0.75}, {"terrain/level": 2.0}]
    assert estimators.full_grown(task(), rows) == []
    (setting,) = estimators.full_grown(task(), [*rows, {"curriculum/events": 1.0}, {"terrain/level": 2.0}])
    changed = config.override(task(), [setting]).env.curriculum
    assert changed.get("events") is None and changed["terrain_levels"] is not None


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(KoboshiError, match="no estimator 'hmi'; did you mean 'him'"):
        compare(plan(tmp_path, "hmi"))
    with pytest.raises(KoboshiError, match="'go2-flat' is one plane"):
        compare(Comparison(make_task("go2-flat"), tmp_path))
    with pytest.raises(KoboshiError, match="'policy' of task 'go2-rough' has none; give env.observations.policy"):
        compare(plan(tmp_path, "him", task=task(*_ALONE)))
    assert not any(tmp_path.iterdir())


def test_means_and_ranges_over_seeds() -> None:
    def run(level: float, estimate: float | None) -> dict[str, object]:
        guess = {} if estimate is None else {"base_lin_vel": estimate}
        return {
            "level_at_end": level, "crossing": {"passed": 1, "crossed": 0.5}, "vx_rmse": 0.2, "estimate": guess,
            "command_as_estimate": 0.3, "steps_per_s": 10,
        }  # fmt: skip

    row = variant_row({"1": run(2.0, 0.1), "2": run(4.0, 0.3)})
    assert row["level"] == (3.0, 2.0, 4.0) and row["velocity estimate"] == pytest.approx((0.2, 0.1, 0.3))
    assert variant_row({"1": run(2.0, None)})["velocity estimate"] is None


def test_the_verbs(koboshi: Koboshi, tmp_path: Path) -> None:
    root = ["--root", str(tmp_path)]
    done = koboshi("train", "go2-rough", "--name", "r", *root, *SMALL)
    assert done.code == 0, done.err
    film = ["play", "go2-rough/r", *root, "--seconds", "0.3", "--video", str(tmp_path / "a.gif")]
    done = koboshi(*film, "--ground", "stairs_up", "--level", "1")
    assert done.code == 0, done.err
    if choose_gl() is not None:
        assert (tmp_path / "a.gif").read_bytes()[:4] == b"GIF8"
    for words, says in (
        (["--ground", "stairs_up", "--level", "2"], "levels from 0 to 1, not 2"),
        (["--ground", "stairs"], "no type of ground 'stairs'; did you mean 'stairs_up'"),
        (["--level", "1"], "--level is one of a type of ground: give --ground too"),
        (["--video", str(tmp_path / "a.mkv")], "a film is a .mp4 or a .gif, and 'a.mkv' is neither"),
    ):
        failed = koboshi(*film, *words)
        assert failed.code == 2 and says in failed.err, failed.err
    out = tmp_path / "out"
    done = koboshi("benchmark", "ground", "go2-rough/r", *root, "--robots", "1", "--seconds", "0.2", "--out", str(out))
    assert done.code == 0 and "stairs" in done.out and "passed" in done.out, done.err
    figures = json.loads((out / "ground.json").read_text())
    assert figures["types"]["stairs_up"]["crossed"] == [0.0, 0.0] and figures["passed"] == 0
    assert (out / "ground.png").stat().st_size > 1000 and figures["changed"] == []
    done = koboshi("compare", "estimators", "go2-flat", *root)
    assert done.code == 2 and "one plane" in done.err
