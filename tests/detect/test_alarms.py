import pytest
import torch

from koboshi.detect import AlarmCfg, alarm_step, initial_alarms
from koboshi.detect.alarms import alarms_over_time
from koboshi.errors import KoboshiError

CFG = AlarmCfg(threshold=0.9, persistence=2, release_threshold=0.2, release_steps=3)


def run(prob, reset=None):
    prob = torch.tensor(prob)[:, None, None]
    reset = torch.zeros(len(prob), 1, dtype=torch.bool) if reset is None else torch.tensor(reset)[:, None]
    return alarms_over_time(CFG, prob, reset)[:, 0, 0].int().tolist()


def test_persistence_counts_steps_in_a_row():
    assert run([0.95, 0.5, 0.95, 0.9, 0.5]) == [0, 0, 0, 1, 1]


def test_an_alarm_stays_until_the_release_threshold_was_undercut_long_enough():
    assert run([0.95, 0.95, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1]) == [0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_a_reset_clears_alarms_and_counts():
    prob = [0.95, 0.95, 0.95, 0.95]
    assert run(prob, [True, False, True, False]) == [0, 1, 0, 1]


def test_a_step_is_pure_and_robots_do_not_mix():
    state = initial_alarms(2, 3)
    before = [x.clone() for x in state]
    prob = torch.zeros(2, 3)
    prob[1, 2] = 1.0
    alarm, next_state = alarm_step(CFG, prob, state)
    alarm, next_state = alarm_step(CFG, prob, next_state)
    assert alarm.nonzero().tolist() == [[1, 2]]
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


def test_joints_that_are_sure_wait_for_fewer_steps():
    cfg = AlarmCfg(threshold=0.5, persistence=4, sure_threshold=0.9, sure_persistence=2, release_steps=3)
    slow, quick, between = [0.6] * 5, [0.95, 0.95, 0.6, 0.0, 0.0], [0.95, 0.6, 0.95, 0.6, 0.0]
    prob = torch.tensor([slow, quick, between]).T[:, None]
    reset = torch.zeros(5, 1, dtype=torch.bool)
    alarms = alarms_over_time(cfg, prob, reset)[:, 0].T.int().tolist()
    assert alarms == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 1, 1]], "not sure in a row, but long enough"
    reset[1] = True
    assert alarms_over_time(cfg, prob, reset)[:, 0, 1].int().tolist() == [0, 0, 0, 0, 0], "a reset counts anew"


@pytest.mark.parametrize(
    "change",
    [
        {"sure_threshold": 0.9}, {"sure_threshold": 1.1}, {"sure_threshold": 0.95, "sure_persistence": 2},
        {"sure_persistence": 2}, {"sure_threshold": 0.95, "sure_persistence": 0},
    ],
)  # fmt: skip
def test_settings_of_the_sure_that_would_do_nothing_are_refused(change):
    with pytest.raises(KoboshiError, match="sure_threshold"):
        AlarmCfg(**change)


@pytest.mark.parametrize("change", [{"threshold": 1.5}, {"release_threshold": 0.95}, {"persistence": 0}])
def test_bad_settings_are_refused(change):
    with pytest.raises(KoboshiError, match="|".join(change)):
        AlarmCfg(**change)
