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


@pytest.mark.parametrize("change", [{"threshold": 1.5}, {"release_threshold": 0.95}, {"persistence": 0}])
def test_bad_settings_are_refused(change):
    with pytest.raises(KoboshiError, match="|".join(change)):
        AlarmCfg(**change)
