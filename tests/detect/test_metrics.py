import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from koboshi.data import Sequences
from koboshi.detect import AlarmCfg, DetectorSpec, FaultDetector, calibrate, evaluate_detector, judge_all, picture
from koboshi.detect.calibration import curve, first_quiet
from koboshi.detect.metrics import (
    alarm_counts,
    confusion,
    confusion_matrix,
    delays,
    delays_ms,
    figures,
    first_named,
    judge,
    macro_f1,
    noticed,
    pool,
    predict,
    quantile,
)
from koboshi.errors import KoboshiError

NOW = AlarmCfg(threshold=0.5, persistence=1, release_threshold=0.5, release_steps=1)


@pytest.fixture
def recorded(card_of):
    """300 rows of 4 robots, silent. Robot 0: joint 1 from row 100. 1: healthy, episodes of 150 rows.
    2: joint 3 from row 60 to a reset at 120, healthy after. 3: joint 0 from row 280, cut off by the end."""
    steps = 300
    severity, reset = torch.zeros(steps, 4, 4), torch.zeros(steps, 4, dtype=torch.bool)
    severity[100:, 0, 1], severity[60:120, 2, 3], severity[280:, 3, 0] = 1.0, 1.0, 1.0
    reset[0], reset[150, 1], reset[120, 2] = True, True, True
    episode = reset.long().cumsum(0) - 1 + 10 * torch.arange(4)
    ended = torch.cat([reset[1:], torch.zeros(1, 4, dtype=torch.bool)])
    columns = {"obs.detector": torch.zeros(steps, 4, 17), "severity": severity, "episode": episode, "reset": reset}
    columns |= {"truncated": ended, "terminated": torch.zeros_like(ended)}
    part = torch.full((steps, 4), -1, dtype=torch.int8)
    return Sequences(card_of(4), columns, part), torch.zeros(steps, 4, 4)


def test_silence_by_hand(recorded):
    seq, prob = recorded
    out = figures(judge(prob, seq), NOW)
    assert out["faults"] == 2, "the fault that the recording cuts off does not count"
    assert out["missed"] == 1 and out["delay_ms_median"] is None and out["false_alarms"] == 0
    assert out["healthy_hours"] == pytest.approx((100 + 300 + 240 + 280) * 0.02 / 3600)
    assert out["faulty_hours"] == pytest.approx((200 + 60 + 20) * 0.02 / 3600)


def test_delays_and_false_alarms_by_hand(recorded):
    seq, prob = recorded
    prob[100:, 0, 1] = 0.9  # at once: one control period
    prob[64:120, 2, 3] = 0.9  # rows 60..64: five periods
    prob[10:13, 1, 2] = 0.9  # false
    prob[20:22, 1, 2] = 0.9  # false again
    prob[110:112, 0, 2] = 0.9  # wrong joint
    prob[130, 2, 3] = 0.9  # false: the fault ended with the reset
    judged = judge(prob, seq)
    alarms = prob > 0.5
    assert delays(judged, alarms).tolist() == [20.0, 100.0]
    counts = alarm_counts(judged, alarms)
    assert counts["false_alarms"] == 3 and counts["wrong_alarms"] == 1
    assert counts["false_alarms_per_hour"] == pytest.approx(3 / counts["healthy_hours"])
    out = figures(judged, NOW)
    assert out["delay_ms_median"] == 100.0 and out["missed"] == 0.0
    assert out["precision"] == pytest.approx(2 / 6) and out["recall"] == 1.0
    assert out["delay_ms_median_by_joint"]["left_knee"] == 20.0


def test_an_alarm_after_the_reset_does_not_count_for_the_fault_before(recorded):
    seq, prob = recorded
    prob[120:140, 2, 3] = 0.9
    assert delays(judge(prob, seq), prob > 0.5).tolist() == [np.inf, np.inf]


def test_persistence_adds_to_the_delay(recorded):
    seq, prob = recorded
    prob[100:, 0, 1] = 0.9
    assert figures(judge(prob, seq), replace(NOW, persistence=3))["delays_ms"] == [60.0, None]


def test_confusion_and_f1_by_hand(recorded):
    seq, prob = recorded
    prob[120:, 0, 1], prob[115:, 0, 2] = 0.9, 0.9  # joint 1 fails, joint 2 is noticed first
    prob[61:, 2, 3] = 0.9  # right; and a false alarm in the healthy episode after the reset
    judged = judge(prob, seq)
    matrix = confusion(judged, prob > 0.5)
    expected = np.zeros((5, 5), dtype=int)
    expected[1, 2] = 1
    expected[3, 3] = 1
    expected[4, 3] = 1  # robot 2's second episode
    expected[4, 4] = 2  # robot 1's two episodes; robot 3 is cut off
    assert np.array_equal(matrix, expected)
    assert macro_f1(matrix) == pytest.approx((0.0 + 2 / 3) / 2)


def test_two_alarms_at_once_go_to_the_more_probable(recorded):
    seq, prob = recorded
    prob[100:, 0, 0], prob[100:, 0, 1] = 0.8, 0.9
    assert confusion(judge(prob, seq), prob > 0.5)[1, 1] == 1


def test_only_the_episodes_of_a_part_are_judged(recorded):
    seq, prob = recorded
    seq.part[:] = 0
    seq.part[:, 1] = 2
    seq.part[:120, 2] = 2
    seq.part[120:, 2] = 1
    prob[5, 0, 0] = 0.9

    class Recalled(FaultDetector):
        """Says what `prob` says of the row whose number lies in the first column of the senses."""

        def forward(self, obs, reset, hidden):
            row, env = obs[..., 0].long(), obs[..., 1].long()
            return self.untold(prob[row, env].logit()), hidden

    seq.columns["obs.detector"][..., 0] = torch.arange(300)[:, None]
    seq.columns["obs.detector"][..., 1] = torch.arange(4)
    prob[64:120, 2, 3] = 0.9
    model = Recalled(DetectorSpec.from_card(seq.card))
    test = judge_all(model, [seq], "test")
    assert sorted(test.episodes.id.tolist()) == [10, 11, 20]
    out = figures(test, NOW)
    assert out["faults"] == 1 and out["false_alarms"] == 0 and out["delays_ms"] == [100.0]
    assert out["healthy_hours"] == pytest.approx(360 * 0.02 / 3600)
    assert np.sum(out["confusion"]) == 3
    with pytest.raises(KoboshiError, match="cannot calibrate alarms: no fault"):
        calibrate(judge_all(model, [seq], "calibrate"))
    every = figures(judge_all(model, [seq]), NOW)
    assert every["false_alarms"] == 1 and every["faults"] == 2
    named = evaluate_detector(model, [seq], NOW)
    assert named["episodes"] == "test" and named["delays_ms"] == [100.0]
    seq.part[:] = -1
    assert evaluate_detector(model, [seq], NOW)["episodes"] == "all, training ones included"
    with pytest.raises(KoboshiError, match="no test episodes"):
        judge_all(model, [seq], "test")


def test_judging_episodes_side_by_side_changes_nothing(card_of, walk):
    torch.manual_seed(0)
    model = FaultDetector(DetectorSpec.from_card(card_of(96)))
    torch.nn.init.normal_(model.head.weight)
    model.fit_scales([walk])
    whole = judge(predict(model, walk), walk)
    lanes = judge_all(model, [walk])
    assert len(lanes.episodes.id) == len(whole.episodes.id) > 200
    a, b = figures(whole, NOW), figures(lanes, NOW)
    for key in ("faults", "delay_ms_median", "missed", "healthy_hours", "false_alarms", "wrong_alarms", "confusion"):
        assert a[key] == (b[key] if key == "confusion" else pytest.approx(b[key])), key
    assert sorted(d or 0 for d in a["delays_ms"]) == sorted(d or 0 for d in b["delays_ms"])


def test_where_nothing_was_measured_there_is_no_figure(recorded):
    seq, prob = recorded
    healthy = pool([judge(prob[:, 1:2], narrow(seq, 1))])
    out = figures(healthy, NOW)
    for key in ("missed", "recall", "precision", "delay_ms_median", "delay_ms_p95", "macro_f1"):
        assert out[key] is None, key
    assert out["wrong_alarms_per_hour"] is None and out["false_alarms_per_hour"] == 0.0
    seq["severity"][:, 1, 0] = 1.0
    broken = judge(prob[:, 1:2], narrow(seq, 1))
    assert figures(broken, NOW)["false_alarms_per_hour"] is None
    assert figures(broken, NOW)["missed_by_joint"] == {**dict.fromkeys(broken.names), "left_hip": 1.0}
    with pytest.raises(KoboshiError, match="no healthy row"):
        calibrate(broken)


def narrow(seq, env):
    columns = {name: column[:, env : env + 1] for name, column in seq.columns.items()}
    return Sequences(seq.card, columns, seq.part[:, env : env + 1])


def test_the_core_on_plain_arrays():
    alarms = np.zeros((20, 2, 3), dtype=bool)
    alarms[5:, 0, 1] = alarms[7:, 0, 0] = alarms[12, 1, 2] = alarms[12, 1, 0] = True
    env, onset, end = np.array([0, 0, 1, 1]), np.array([3, 6, 10, 13]), np.array([20, 6, 20, 20])
    named = first_named(alarms, env, onset, end)
    inf = np.inf
    assert named.tolist() == [[7, 5, inf], [inf] * 3, [12, inf, 12], [inf] * 3]
    joint = np.array([0, 0, 2, 1])
    assert delays_ms(named, joint, onset, 0.02).tolist() == pytest.approx([100.0, inf, 60.0, inf])
    assert noticed(named, onset).tolist() == [1, 3, 0, 3]
    assert noticed(named, onset, window=2).tolist() == [3, 3, 3, 3], "rows 5 and 12 are the third ones"
    assert noticed(named, onset, window=3).tolist() == [1, 3, 0, 3]
    strength = np.array([[0.1, 0.2, 0.3]] * 4)
    assert noticed(named, onset, strength=strength).tolist() == [1, 3, 2, 3]
    matrix = confusion_matrix(joint, noticed(named, onset, strength=strength), 3)
    assert matrix.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert macro_f1(matrix) == pytest.approx(1 / 3)
    assert macro_f1(np.zeros((4, 4))) is None
    assert quantile(np.array([1.0, 2.0, inf]), 0.5) == 2.0 and quantile(np.array([1.0, inf]), 0.5) is None
    assert quantile(np.array([]), 0.5) is None


def test_weak_faults_are_left_out(recorded):
    seq, prob = recorded
    seq["severity"][100:, 0, 1] = 0.1
    out = figures(judge(prob, seq, min_severity=0.2), NOW)
    assert out["faults"] == 1 and out["healthy_hours"] == pytest.approx((100 + 300 + 240 + 280) * 0.02 / 3600)


def test_pooling_recordings_of_several_lengths(recorded):
    seq, prob = recorded
    prob[64:120, 2, 3] = 0.9
    long = judge(prob, seq)
    short = replace(seq, columns={n: column[:200] for n, column in seq.columns.items()}, part=seq.part[:200])
    both = figures(pool([long, judge(prob[:200], short)]), NOW)
    assert both["faults"] == 4 and both["delays_ms"] == [None, 100.0, None, 100.0]
    assert np.sum(both["confusion"]) == 5 + 6
    assert both["healthy_hours"] == pytest.approx((920 + 100 + 200 + 140 + 200) * 0.02 / 3600)


def test_calibration_takes_the_fastest_setting_that_is_quiet_enough(recorded):
    seq, prob = recorded
    # Noise of 0.98 in single rows; the faults' own probability is 0.96 at once and 0.999 six rows later.
    prob[::20, 1, 2] = 0.98
    for start, end, env, joint in ((100, 300, 0, 1), (60, 120, 2, 3)):
        prob[start:end, env, joint] = 0.96
        prob[start + 6 : end, env, joint] = 0.999
    chosen = calibrate(judge(prob, seq), false_alarms_per_hour=0.4 / (920 * 0.02 / 3600))
    assert chosen.persistence == 2 and chosen.threshold <= 0.96
    out = figures(judge(prob, seq), chosen)
    assert out["false_alarms"] == 0 and out["delay_ms_median"] == 40.0
    tolerant = calibrate(judge(prob, seq), false_alarms_per_hour=1e6)
    assert tolerant.persistence == 1 and figures(judge(prob, seq), tolerant)["delay_ms_median"] == 20.0


def test_calibration_extrapolates_rare_false_alarms(recorded):
    seq, prob = recorded
    for start, end, env, joint in ((100, 300, 0, 1), (60, 120, 2, 3)):
        prob[start:end, env, joint] = 1.0
    # 32 peaks of log-odds > 0, 16 > 1, 8 > 2, 4 > 3, and chance has it that none is higher.
    peaks = torch.tensor([0.5] * 16 + [1.5] * 8 + [2.5] * 4 + [3.5] * 4).sigmoid()
    prob[torch.arange(32) * 4 + 1, 1, 2] = peaks
    judged = judge(prob, seq)
    hours = 920 * 0.02 / 3600
    chosen = calibrate(judged, NOW, 0.4 / hours, persistences=(1,))
    # 32 / 2⁷ = 0.25 alarms are few enough, 32 / 2⁶ = 0.5 are not.
    assert chosen.threshold == pytest.approx(torch.tensor(7.0).sigmoid().item())


@pytest.mark.parametrize(
    ("seen", "quiet"),
    [
        ([5, 4, 3, 0], 5),  # 3·exp(−0.255·(5 − 2)) = 1.4
        ([3, 4, 5, 0], 4),  # counts that rise tell nothing of the tail: 5/e² = 0.7
        ([4, 4, 0, 0], 2),  # 4/e = 1.47
        ([30, 3, 0, 0], 2),  # they do not fall tenfold for ever: 3/e = 1.1
        ([0, 0, 0, 0], 1),  # none seen is hardly three: 3/e
    ],
)
def test_what_is_quiet_by_hand(seen, quiet):
    thresholds = tuple(torch.arange(8.0).sigmoid().tolist())
    counts = [{"false_alarms": n, "healthy_hours": 1.0} for n in [*seen, *[0] * (8 - len(seen))]]
    assert first_quiet(thresholds, counts, 1.5) == quiet


def test_curve_and_picture(recorded, tmp_path):
    seq, prob = recorded
    prob[100:, 0, 1], prob[10, 1, 1] = 0.9, 0.6
    judged = judge(prob, seq)
    rows = curve(judged, NOW, thresholds=(0.5, 0.7, 0.95))
    assert [r["false_alarms"] for r in rows] == [1, 0, 0] and [r["recall"] for r in rows] == [0.5, 0.5, 0.0]
    result = {"episodes": "test", **figures(judged, NOW), "curve": rows}
    json.dumps(result, allow_nan=False)
    picture(result, tmp_path / "detector.png")
    assert (tmp_path / "detector.png").stat().st_size > 10_000
    silent = judge(torch.zeros_like(prob[:, 1:2]), narrow(seq, 1))  # nothing to measure
    picture({"episodes": "test", **figures(silent, NOW), "curve": curve(silent, NOW)}, tmp_path / "empty.png")
