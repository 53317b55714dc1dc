"""Faults of several kinds and severities: memories, joints' readers, the test without learning, and the figures."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from walker import make_card, simulate

from koboshi.detect import (
    AlarmCfg,
    CusumCfg,
    DetectorCfg,
    DetectorSpec,
    DetectorTrainCfg,
    build_detector,
    calibrate,
    evaluate_detector,
    judge_all,
    train_detector,
)
from koboshi.detect.grades import _Told, summary
from koboshi.detect.memories import build_memory
from koboshi.errors import KoboshiError

SMALL = DetectorCfg(embed=24, hidden=32, joint=12)
SPANS = {"gru": None, "tcn": 8, "window": 6}


@pytest.fixture(scope="module")
def graded():
    """400 steps of 96 robots whose joints lose torque or lock."""
    return simulate(400, 96, seed=3, graded=True)


@pytest.mark.parametrize(("kind", "span"), SPANS.items())
def test_chunks_of_any_length_and_resets(kind: str, span: int | None) -> None:
    torch.manual_seed(0)
    memory = build_memory(kind, 5, 7, span or 0)
    x, keep = torch.randn(40, 3, 5), torch.ones(40, 3)
    keep[0], keep[23, 1] = 0, 0
    start = torch.randn(3, memory.carried).abs()
    with torch.no_grad():
        whole, end = memory(x, keep, start)
        parts, state = [], start
        for length in (1, 16, 2, 21):
            done = sum(map(len, parts))
            rows, state = memory(x[done : done + length], keep[done : done + length], state)
            parts.append(rows)
        torch.testing.assert_close(torch.cat(parts), whole)
        torch.testing.assert_close(state, end)
        fresh, _ = memory(x[23:, 1:2], keep[23:, 1:2], torch.zeros(1, memory.carried))
        torch.testing.assert_close(whole[23:, 1:2], fresh, msg="a reset forgets all")
        assert not torch.allclose(whole[24:, 0], memory(x[23:, :1], keep[23:, 1:2], start[:1])[0][1:, 0])


def test_one_robot_alone_is_read_alike_in_numpy(graded) -> None:
    torch.manual_seed(0)
    model = build_detector(DetectorSpec.from_card(graded.card), SMALL)
    model.fit_scales([graded])
    model.eval()
    obs = graded["obs.detector"][:120, :1].clone()
    obs[50] *= 300.0  # a fall: every limit is reached
    reset = torch.zeros(120, 1, dtype=torch.bool)
    reset[30] = reset[77] = True
    with torch.inference_mode():
        start = torch.randn(model.initial(1).shape).abs()
        whole, end = model(obs, reset, start)
        hidden, rows = start, []
        for o, r in zip(obs, reset, strict=True):
            reading, hidden = model.step(o, r if r.any() else None, hidden)
            rows.append(reading)
        assert model._one_robot is not None, "NumPy was not used"
        twin = copy.deepcopy(model)
        again, _ = twin.step(obs[0], None, start)
        torch.testing.assert_close(again.logit, rows[0].logit)
    heard = model.candidate
    for name in ("logit", "kind", "severity"):
        streamed, batched = torch.stack([getattr(row, name) for row in rows]), getattr(whole, name)
        assert streamed.shape == batched.shape
        assert (streamed - batched)[..., heard].abs().max() <= 2e-5, name
        assert batched[..., heard].std() > 0.01, "hardly a difference: the test says little"
    assert (hidden - end).abs().max() <= 2e-5
    assert (torch.stack([row.logit for row in rows])[..., ~heard] < -90).all()


def test_one_robot_with_wheels_is_read_alike_in_numpy(graded) -> None:
    """Two joints whose angle nobody senses, and a term that lists the joints backwards."""
    spec = DetectorSpec.from_card(graded.card)
    law = replace(spec.law, position=[0.0] * len(spec.joint_names))
    start, width = next((s, w) for name, s, w in spec.layout if name == "joint_pos")
    layout = [e if e[0] != "joint_pos" else ("joint_pos", start, width - 2) for e in spec.layout]
    layout.insert(1 + [e[0] for e in layout].index("joint_pos"), ("unknown", start + width - 2, 2))
    named = {"joint_pos": list(spec.joint_names[2:]), "joint_vel": list(reversed(spec.joint_names))}
    model = build_detector(replace(spec, law=law, layout=layout, term_joints=named), SMALL).eval()
    with torch.no_grad():
        model.joints.changes.inv_scale.copy_(torch.rand(model.joints.changes.inv_scale.shape) + 0.5)
    obs, reset = graded["obs.detector"][:40, :1], torch.zeros(40, 1, dtype=torch.bool)
    with torch.inference_mode():
        whole, hidden = model(obs, reset, model.initial(1))[0], model.initial(1)
        for t in range(40):
            reading, hidden = model.step(obs[t], None, hidden)
            torch.testing.assert_close(reading.logit[0], whole.logit[t, 0], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(reading.severity[0], whole.severity[t, 0], atol=2e-5, rtol=1e-4)
    assert whole.severity.std() > 1e-4


@pytest.mark.parametrize("kind", ["tcn", "window"])
def test_they_look_back_on_so_many_rows(kind: str) -> None:
    torch.manual_seed(0)
    memory, x = build_memory(kind, 5, 7, 8), torch.randn(30, 1, 5)
    other = x.clone()
    other[10] += 1.0
    with torch.no_grad():
        one, two = (memory(rows, torch.ones(30, 1), torch.zeros(1, memory.carried))[0] for rows in (x, other))
    changed = (one != two).any(-1).squeeze(1).nonzero().squeeze(1)
    assert changed.tolist() == list(range(10, 18))


@pytest.mark.parametrize(("kind", "span"), SPANS.items())
def test_streamed_equals_batched(graded, kind: str, span: int | None) -> None:
    torch.manual_seed(1)
    model = build_detector(DetectorSpec.from_card(graded.card), replace(SMALL, memory=kind, span=span)).eval()
    model.fit_scales([graded])
    obs, reset = graded["obs.detector"][:60, :5], graded["reset"][:60, :5]
    with torch.no_grad():
        batched, end = model(obs, reset, model.initial(5))
        hidden, rows = model.initial(5), []
        for o, r in zip(obs, reset, strict=True):
            reading, hidden = model.step(o, r if r.any() else None, hidden)
            rows.append(reading)
    for i, part in enumerate(batched):
        torch.testing.assert_close(torch.stack([row[i] for row in rows]), part, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden, end, atol=1e-5, rtol=1e-5)
    assert batched.kind.shape == (60, 5, 2, 4) and batched.severity.shape == (60, 5, 4)


def test_it_learns_kind_and_severity(graded) -> None:
    cfg = DetectorTrainCfg(epochs=16, batch_envs=48, chunk=25, learning_rate=1e-2)
    model = train_detector([graded], SMALL, cfg)
    alarm = calibrate(judge_all(model, [graded]), false_alarms_per_hour=1.0)
    other = simulate(400, 96, seed=4, graded=True)
    other.part.fill_(2)
    result = evaluate_detector(model, [other], alarm, with_curve=False)
    assert result["kind_macro_f1"] > 0.95, result["kind_confusion"]
    assert result["severity_error"] < 0.12, "a constant guess is off by 0.16"
    assert result["by_kind"]["locked"]["recall"][3] > 0.9 and result["by_kind"]["torque_loss"]["recall"][2] > 0.9


def test_without_torque_sensing_measured_torques_do_not_matter(graded) -> None:
    model = build_detector(DetectorSpec.from_card(graded.card), replace(SMALL, torque=False)).eval()
    model.fit_scales([graded])
    obs, reset = graded["obs.detector"][:20, :5].clone(), graded["reset"][:20, :5]
    with torch.no_grad():
        before, _ = model(obs, reset, model.initial(5))
        obs[..., -4:] = 99.0
        after, _ = model(obs, reset, model.initial(5))
        obs[..., 1] += 1.0
        moved, _ = model(obs, reset, model.initial(5))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(before.logit, moved.logit)


def test_the_cusum_by_hand() -> None:
    model = build_detector(DetectorSpec.from_card(make_card(1)), CusumCfg(ratio=2.0, most=5.0, level=3.0))
    model.sigma.fill_(2.0)
    obs = torch.zeros(4, 1, 17)
    obs[:, 0, -4] = torch.tensor([6.0, 0.0, 20.0, 20.0])  # nothing is asked for, so all of it is residual
    reset = torch.tensor([[True], [False], [False], [True]])
    with torch.no_grad():
        reading, _ = model(obs, reset, torch.full((1, 4), 4.0))
    gain = [0.5 * z**2 * 0.75 - math.log(2) for z in (3.0, 0.0, 10.0)]
    expected = [gain[0], gain[0] + gain[1], 5.0, 5.0]
    assert reading.logit[:, 0, 0].tolist() == pytest.approx([e - 3.0 for e in expected])
    assert reading.logit[:, 0, 1].tolist() == pytest.approx([-3.0] * 4)
    obs[0, 0, -4:] = 6.0  # what all show at once is the world: z are divided by their median over a normal one's
    with torch.no_grad():
        reading, _ = model(obs[:1], reset[:1], torch.zeros(1, 4))
    z = 3.0 / (1.4826 * 3.0)
    assert reading.logit[0, 0].tolist() == pytest.approx([max(0.0, 0.5 * z**2 * 0.75 - math.log(2)) - 3.0] * 4)


def test_the_cusum_finds_dead_joints_without_learning(walk, other_walk) -> None:
    model = train_detector([walk], CusumCfg(), DetectorTrainCfg())
    result = evaluate_detector(model, [other_walk], calibrate(judge_all(model, [walk]), false_alarms_per_hour=0.5))
    assert result["recall"] > 0.95 and result["delay_ms_median"] <= 100, result["recall"]


def test_who_tells_no_kinds_has_no_figures_of_them(graded) -> None:
    model = train_detector([graded], CusumCfg(), DetectorTrainCfg())
    other = simulate(200, 48, seed=5, graded=True)
    other.part.fill_(2)
    result = evaluate_detector(model, [other], AlarmCfg(), with_curve=False)
    assert result["kind_macro_f1"] is None and result["severity_error"] is None
    assert sum(result["by_kind"]["locked"]["faults"]) > 0


def test_figures_by_hand() -> None:
    inf = math.inf
    told = _Told(
        kind=np.array([0, 0, 1, 1, 1]),
        severity=np.array([0.3, 1.0, 0.5, 0.8, 0.9]),
        delay=np.array([inf, 40.0, 60.0, 100.0, 20.0]),
        said_kind=np.array([1, 0, 1, 0, 1]),
        said_severity=np.array([0.9, 0.9, 0.5, 0.6, 1.0]),
    )
    found = summary(told, ["torque_loss", "locked"])
    assert found["by_kind"]["torque_loss"] == {
        "recall": [0.0, None, None, 1.0], "delay_ms_median": [None, None, None, 40.0], "faults": [1, 0, 0, 1],
    }  # fmt: skip
    assert found["by_kind"]["locked"]["recall"] == [None, 1.0, 1.0, 1.0]
    # Of the four noticed: torque_loss 1 of 1 right, and one lock is taken for it; locks 2 of 3 right.
    assert found["kind_macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["severity_error"] == pytest.approx((0.1 + 0.0 + 0.2 + 0.1) / 4)


@pytest.mark.parametrize(("memory", "span"), [("gru", 8), ("tcn", None), ("window", 1)])
def test_a_span_belongs_to_what_looks_back(memory: str, span: int | None) -> None:
    with pytest.raises(KoboshiError, match="span"):
        DetectorCfg(memory=memory, span=span).validate()
