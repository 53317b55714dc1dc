"""The switch's settings: chosen one after the other, and only where one is clearly better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from koboshi.detect.calibration import CALIBRATION_THRESHOLDS, first_quiet
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError
from koboshi.specialists.controller import Controller
from koboshi.specialists.storage import StoredController
from koboshi.stages import specialists, switch
from koboshi.stages.folders import task_of
from koboshi.tasks.task import SwitchStageCfg

HEARD = [100] * 4 + [0] * 10
NOISE = torch.linspace(-1.0, 1.0, 101)


def test_clearly_better_is_by_two_standard_errors_of_the_pairs() -> None:
    # Deviations of 2 around the difference, so its standard error is 2 / √100 = 0.2 (a little more by n − 1).
    alternating = torch.tensor([2.0, -2.0]).repeat(50)
    other = 100 * torch.rand(100, dtype=torch.float64)  # what both have in common does not count
    assert switch.clearly_better(other + 0.41 + alternating, other)
    assert not switch.clearly_better(other + 0.39 + alternating, other)
    assert not switch.clearly_better(other, other)


def test_one_setting_after_the_other(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: releasing late is worse, a dwell of 10 is best, and a blend of 3 better by less than chance."""
    worth = {("release", 25): -1.0, ("release", 100): -1.0, ("dwell", 10): 1.0, ("dwell", 25): 0.5, ("blend", 3): 0.01}
    asked = []

    def rewards(cfg: EnvCfg, controller: Controller, seed: int) -> tuple[Tensor, int]:
        router = controller.router
        setting = {
            "release": router.alarm.release_steps, "dwell": router._dwell_steps, "blend": controller.blend_steps,
        }  # fmt: skip
        asked.append((cfg, seed, tuple(setting.values())))
        value = sum(worth.get(pair, 0.0) for pair in setting.items())
        return value + (NOISE if setting["blend"] else -NOISE), 7

    monkeypatch.setattr(switch, "rewards", rewards)
    path = pipeline / "controller.safetensors"
    task = replace(task_of(path), switch=SwitchStageCfg(healthy_hours=0.0, num_envs=8, seed=5))
    stored = StoredController(path, Env(replace(task.env, num_envs=1)))
    release = stored.alarm.release_steps
    stored.switch = replace(stored.switch, dwell_steps=0, blend_steps=0)
    alarm, chosen, table = switch.choose(task, stored)
    assert release == 50 and (alarm, chosen.dwell_steps, chosen.blend_steps) == (stored.alarm, 10, 0)
    assert [setting for *_, setting in asked] == [
        (50, 0, 0), (25, 0, 0), (100, 0, 0), (50, 10, 0), (50, 25, 0), (50, 10, 3), (50, 10, 6),
    ]  # fmt: skip
    assert [row["taken"] for row in table] == [True, False, False, True, False, False, False]
    assert table[3]["reward"] == pytest.approx(1.0, abs=1e-6) and table[3]["fell"] == pytest.approx(7 / 101)
    (cfg,) = {id(cfg): cfg for cfg, _, _ in asked}.values()
    assert {seed for _, seed, _ in asked} == {5} and cfg.num_envs == 8
    assert cfg.faults.faults == task.faults and cfg.faults.probability == task.collect.probability


def test_threshold_and_persistence_are_the_soonest_of_the_quiet_ones(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: with a persistence of p steps the (7 − p)th threshold is quiet, and three steps notice soonest."""
    path = pipeline / "controller.safetensors"
    task = task_of(path)
    task = replace(
        task,
        detector=replace(task.detector, false_alarms_per_hour=0.4),
        collect=replace(task.collect, standing_fraction=0.3),
    )
    stored = StoredController(path, Env(replace(task.env, num_envs=1)))
    asked = []

    def counted(cfg, controller, settings, hours, num_envs, seed, report):
        asked.append((cfg.command, hours, seed))
        places = [(s.persistence, CALIBRATION_THRESHOLDS.index(s.threshold)) for s in settings]
        # 100 alarms before the quiet threshold, which are not extrapolated far: then none in 100 hours.
        return [{"false_alarms": 100 if i < 7 - p else 0, "healthy_hours": 100.0} for p, i in places]

    def delays(recording, setting):
        assert recording.probability is not None
        return np.array([20.0, np.inf] if setting.persistence == 3 else [900.0, 5000.0])

    monkeypatch.setattr(switch, "alarms_of_settings", counted)
    monkeypatch.setattr(switch, "delays_of_setting", delays)
    alarm = switch.choose_alarm(task, stored)
    standing = replace(task.env.command, standing_fraction=0.3)
    assert asked == [(standing, task.switch.healthy_hours, task.switch.seed)], "walks are as in the recordings"
    quiet = first_quiet(CALIBRATION_THRESHOLDS, [{"false_alarms": n, "healthy_hours": 100.0} for n in HEARD], 0.4)
    assert (alarm.persistence, alarm.threshold) == (3, CALIBRATION_THRESHOLDS[quiet])
    assert alarm.release_steps == stored.alarm.release_steps and quiet >= 4
    assert alarm.sure_threshold is None, "no two notice sooner"


def test_those_that_are_sure_may_be_quicker(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, of 0.4 false alarms an hour: after four steps the fourth threshold is likely to have 0.37 and the fifth
    0.14; after one step the tenth 0.02, the ninth 0.05 and the eighth 0.14."""
    path = pipeline / "controller.safetensors"
    task = task_of(path)
    task = replace(task, detector=replace(task.detector, false_alarms_per_hour=0.4))
    tried: list[tuple[float, float]] = []

    def counted(cfg, controller, settings, *_):
        places = [(s.persistence, CALIBRATION_THRESHOLDS.index(s.threshold)) for s in settings]
        return [{"false_alarms": 100 if i < 7 - p else 0, "healthy_hours": 100.0} for p, i in places]

    def delays(recording, setting):
        if setting.sure_threshold is None or (setting.sure_persistence, setting.persistence) != (1, 4):
            return np.array([60.0])
        tried.append((setting.threshold, setting.sure_threshold))
        return np.array([40.0 if setting.threshold == CALIBRATION_THRESHOLDS[4] else 50.0])

    monkeypatch.setattr(switch, "alarms_of_settings", counted)
    monkeypatch.setattr(switch, "delays_of_setting", delays)
    alarm = switch.choose_alarm(task, StoredController(path, Env(replace(task.env, num_envs=1))))
    places = [tuple(map(CALIBRATION_THRESHOLDS.index, each)) for each in tried]
    assert places[:4] == [(3, 9), (4, 7), (5, 7), (6, 7)], "none has 0.4 and more, none is sure of less"
    assert (alarm.persistence, alarm.sure_persistence) == (4, 1)
    assert (alarm.threshold, alarm.sure_threshold) == (CALIBRATION_THRESHOLDS[4], CALIBRATION_THRESHOLDS[7])


def test_what_the_pipeline_chose_is_in_its_controller(pipeline: Path, koboshi, tmp_path: Path) -> None:
    found = koboshi("switch", str(pipeline), "--out", str(tmp_path / "other.safetensors"), "switch.dwell_steps=[0,2]")
    assert found.code == 0 and "the switch: control steps" in found.out
    table = (tmp_path / "other-switch.json").read_text()
    task = task_of(pipeline / "controller.safetensors")
    stored = StoredController(tmp_path / "other.safetensors", Env(replace(task.env, num_envs=1)))
    assert f'"dwell_steps": {stored.switch.dwell_steps}' in table
    assert (task.switch.num_envs, task.switch.dwell_steps) == (4, (3,))


def test_rewards_end_with_a_fall(pipeline: Path) -> None:
    """A robot that is told to do nothing falls; what it earns is what a loop by hand adds up until then."""
    path = pipeline / "controller.safetensors"
    task = task_of(path)
    stored = StoredController(path, Env(replace(task.env, num_envs=1)))
    cfg = replace(switch.sweep_env_cfg(task, task.switch), episode_length_s=1.6)
    controller = stored.learned()
    found, falls = switch.rewards(cfg, controller, 3)
    env = Env(cfg)
    obs, state = env.reset(3), controller.initial_state(4)
    reset, total, up = torch.ones(4, dtype=torch.bool), torch.zeros(4), [True] * 4
    for _ in range(80):
        decision, state = controller.act(obs, reset, state)
        step = env.step(decision.action)
        for i in range(4):
            total[i] += float(step.reward[i]) if up[i] else 0.0
            up[i] &= not step.terminated[i]
        obs, reset = step.obs, step.terminated | step.truncated
    torch.testing.assert_close(found, total / 1.6)
    assert falls == up.count(False) > 0, "nobody fell: the test says little"


def test_a_detector_without_a_share_is_refused(pipeline: Path) -> None:
    path = pipeline / "controller.safetensors"
    task = task_of(path)
    task = replace(task, specialists=replace(task.specialists, detector_share=0.0))
    with pytest.raises(KoboshiError, match="detector_share=0.0: the detector would switch in no environment"):
        specialists.check_detector(task, given=True)
    specialists.check_detector(task, given=False)
