from dataclasses import replace

import pytest
import torch

from koboshi.data import Column, LawCard
from koboshi.detect import (
    AlarmCfg,
    DetectorCfg,
    DetectorSpec,
    FaultDetector,
    alarm_step,
    initial_alarms,
    load_detector,
    save_detector,
)
from koboshi.errors import KoboshiError


def make_detector(card, **changes):
    torch.manual_seed(0)
    model = FaultDetector(DetectorSpec.from_card(card), DetectorCfg(**{"embed": 24, "hidden": 32, **changes}))
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def test_features_by_hand(card_of):
    model = make_detector(card_of(1))
    obs = torch.zeros(17)
    # Joint 1: 100 (0.5 · 0.6 - 0.1) - 3 · 2 = 14 N·m asked for, 0.6 measured. Joint 2: asks for 150, gets 60.
    obs[1 + 1], obs[5 + 1], obs[9 + 1], obs[13 + 1] = 0.1, 2.0, 0.6, 0.6
    obs[9 + 2], obs[13 + 2] = 3.0, 60.0
    features = model.features(obs)
    assert torch.equal(features[:17], obs)
    scale = 0.005 * 60
    measured, expected, residual, size, missing = features[17:].view(5, 4)
    assert measured[1].item() == pytest.approx(torch.asinh(torch.tensor(0.6 / scale)).item())
    assert expected[1].item() == pytest.approx(torch.asinh(torch.tensor(14 / scale)).item())
    assert residual[1].item() == pytest.approx(torch.asinh(torch.tensor(13.4 / scale)).item())
    assert size[1].item() == pytest.approx(0.6 / scale) and size[2] == 8
    assert residual[2] == 0 and missing[2] == 0
    assert missing[1].item() == pytest.approx(13.4 * 14 / (14**2 + scale**2))
    assert not features[17:].view(5, 4)[:, [0, 3]].any()


def test_without_resets_it_is_torchs_gru_and_a_cusum(card_of, walk):
    model = make_detector(card_of(96))
    gru = torch.nn.GRU(24, 32)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(gru, f"{name}_l0").data.copy_(getattr(model.memory.cell, name))
    obs, start = walk["obs.detector"][:60], torch.randn(96, 36).abs()
    features, rows = model._read(obs)
    embedded = torch.nn.functional.elu(model.embed(features))
    memory, last = gru(embedded, start[None, :, :32].contiguous())
    evidence, sums = start[:, 32:], []
    for row in rows:
        evidence = (evidence + row).clamp(0, 16)
        sums.append(evidence)
    (logits, *_), end = model(obs, torch.zeros(60, 96, dtype=torch.bool), start)
    expected = model.head(memory) + model.gain[0] * torch.stack(sums) + model.gain[1] * rows
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(end, torch.cat((last[0], evidence), 1), atol=1e-5, rtol=1e-5)


def test_evidence_is_weighed_alike_on_every_joint(card_of):
    model = make_detector(card_of(1))
    obs = torch.zeros(4, 17)
    for j in range(4):  # each row: joint j asks for 25 N·m and gives 3
        obs[j, 9 + j], obs[j, 13 + j] = 0.5, 3.0
    _, rows = model._read(obs)
    torch.testing.assert_close(rows.diagonal(), rows[0, 0].expand(4))
    assert (rows[0, 1:] - rows[0, 1]).abs().max() < 1e-6 and rows[0, 0] != rows[0, 1]


def test_streamed_equals_batched_over_resets(card_of, walk):
    model = make_detector(card_of(96))
    model.fit_scales([walk])
    reset = torch.rand(120, 96, generator=torch.Generator().manual_seed(0)) < 0.05
    with torch.inference_mode():
        start = torch.randn(96, 36)
        (batched, *_), end = model(walk["obs.detector"][:120], reset, start)
        (first, *_), middle = model(walk["obs.detector"][:50], reset[:50], start)
        (second, *_), chunked_end = model(walk["obs.detector"][50:120], reset[50:], middle)
        hidden, streamed = start, []
        for obs, r in zip(walk["obs.detector"][:120], reset, strict=True):
            (logits, *_), hidden = model.step(obs, r, hidden)
            streamed.append(logits)
        alone = model.initial(1)
        for t in range(20):
            (one, *_), alone = model.step(walk["obs.detector"][t, :1], None, alone)
        (whole, *_), _ = model(walk["obs.detector"][:20, :1], walk["reset"][:20, :1], model.initial(1))
        torch.testing.assert_close(one, whole[-1])
    assert (torch.stack(streamed) - batched).abs().max() <= 1e-5
    assert (torch.cat([first, second]) - batched).abs().max() <= 1e-5
    assert (hidden - end).abs().max() <= 1e-5 and (chunked_end - end).abs().max() <= 1e-5


def test_a_reset_forgets_everything_before_it(card_of, walk):
    model = make_detector(card_of(96))
    reset = torch.ones(1, 96, dtype=torch.bool)
    (a, *_), _ = model(walk["obs.detector"][:1], reset, torch.randn(96, 36))
    (b, *_), _ = model(walk["obs.detector"][:1], reset, model.initial(96))
    assert torch.equal(a, b)


def test_joints_that_cannot_fail_stay_silent_whatever_is_learnt(card_of, walk):
    card = card_of(96, candidates=["left_hip", "left_knee", "right_hip"])
    model = FaultDetector(DetectorSpec.from_card(card))
    obs, reset = walk["obs.detector"][:50], walk["reset"][:50]
    optimiser = torch.optim.Adam(model.parameters(), lr=0.5)
    for _ in range(5):  # everything that is learnt is pushed to raise every logit
        (logits, *_), _ = model(obs, reset, model.initial(96))
        optimiser.zero_grad()
        (-logits.sum()).backward()
        optimiser.step()
    assert model.gain.min() > 1.5, "the gains were not pushed"
    with torch.no_grad():
        (logits, *_), hidden = model(obs, reset, model.initial(96))
        model.eval()
        (stepped, *_), _ = model.step(obs[0], None, hidden)
        (one, *_), _ = model.step(obs[0, :1], None, hidden[:1])
    assert logits[..., :3].max() > 50
    for silent in (logits[..., 3], stepped[:, 3], one[:, 3]):
        assert (silent < -50).all()


def test_twice_the_expected_torque_is_not_none_at_all(card_of):
    """Both are wrong by the same amount, 25 N·m; only the sign of the missing part tells them apart."""
    model = make_detector(card_of(1))
    obs = torch.zeros(4, 17)
    obs[:, 9] = 0.5  # joint 0 is asked for 25 N·m
    obs[:, 13] = torch.tensor([25.0, 0.0, 50.0, -25.0])
    missing = model.features(obs)[:, -4]
    assert missing.tolist() == pytest.approx([0.0, 1.0, -1.0, 2.0], abs=1e-3)
    _, rows = model._read(obs)
    assert len(set(rows[:, 0].tolist())) == 4
    # What the other four features say of 0 N·m and of 50 differs in the measured torque alone; were that the same too,
    # the missing part would still tell.
    features = torch.zeros(2, 37)
    features[:, 17 + 4 * 4] = torch.tensor([1.0, -1.0])
    model.features = lambda _: features
    none, twice = model._read(torch.zeros(2, 17))[1][:, 0].tolist()
    assert none != twice


def law_of(control, position, velocity, scale, offset, default, limit, lag=0.0):
    return LawCard([control] * 4, [position] * 4, [velocity] * 4, [limit] * 4, [scale] * 4, [offset] * 4,
                   [default] * 4, lag)  # fmt: skip


# joint_pos 0.1 rad off the default, joint_vel 2 rad/s, action 0.6.
@pytest.mark.parametrize(
    ("law", "by_hand"),
    [
        # Position servo at 0.3 rad, kp 100, kd 3: 100 (0.3 + 0.5 · 0.6 - 0.4) - 3 · 2 = 14 N·m.
        (law_of(100.0, -100.0, -3.0, 0.5, 0.3, 0.3, 60.0), 14.0),
        # The same 5 ms before, when the joint stood 0.01 rad further back: 15 N·m.
        (law_of(100.0, -100.0, -3.0, 0.5, 0.3, 0.3, 60.0, 0.005), 15.0),
        # A wheel's velocity servo, 20 rad/s an action, damping 2: 2 (20 · 0.6 - 2) = 20 N·m.
        (law_of(2.0, 0.0, -2.0, 20.0, 0.0, 0.0, 60.0), 20.0),
        # A torque-driven joint, 30 N·m an action, whatever it does: 18 N·m.
        (law_of(1.0, 0.0, 0.0, 30.0, 0.0, 0.7, 60.0, 0.005), 18.0),
        # More than it can give.
        (law_of(1.0, 0.0, 0.0, 30.0, 0.0, 0.0, 11.0), 11.0),
        (law_of(-1.0, 0.0, 0.0, 30.0, 0.0, 0.0, 11.0), -11.0),
    ],
)
def test_every_kind_of_actuator_has_an_expected_torque(card_of, law, by_hand):
    model = make_detector(card_of(1, law=law))
    obs = torch.zeros(17)
    obs[1 + 1], obs[5 + 1], obs[9 + 1], obs[13 + 1] = 0.1, 2.0, 0.6, 3.0
    measured, expected = model.torques(obs)
    assert measured.tolist() == [0, 3, 0, 0]
    assert expected[1].item() == pytest.approx(by_hand, rel=1e-6)


def test_wheels_whose_angle_is_not_observed(card_of):
    """joint_pos has the two hips, last_action lists the joints backwards."""
    layout = [("joint_pos", 0, 2), ("joint_vel", 2, 4), ("last_action", 6, 4), ("joint_torque", 10, 4)]
    hips, backwards = ["left_hip", "right_hip"], ["right_knee", "right_hip", "left_knee", "left_hip"]
    law = LawCard([100.0, 2.0] * 2, [-100.0, 0.0] * 2, [-3.0, -2.0] * 2, [60.0] * 4, [0.5, 20.0] * 2, [0.0] * 4,
                  [0.0] * 4)  # fmt: skip
    named = dict(law=law, term_joints={"joint_pos": hips, "last_action": backwards})
    columns = {**card_of(1).columns, "obs.detector": Column("float32", (14,))}
    card = card_of(1, layouts={"detector": layout}, columns=columns, **named)
    obs = torch.zeros(14)
    obs[1], obs[6 + 1], obs[6 + 2], obs[2 + 1] = 0.1, 0.6, 0.7, 3.0
    model = make_detector(card)
    _, expected = model.torques(obs)
    # Right hip: 100 (0.5 · 0.6 - 0.1) = 20; left knee, a wheel: 2 (20 · 0.7 - 3) = 22.
    assert expected.tolist() == pytest.approx([0, 22, 20, 0])
    places = {term: model.spec.place(term, -1).tolist() for term in ("joint_pos", "joint_vel", "last_action")}
    assert places == {"joint_pos": [0, -1, 1, -1], "joint_vel": [2, 3, 4, 5], "last_action": [9, 8, 7, 6]}
    with pytest.raises(KoboshiError, match="actuators of left_knee, right_knee depend on 'joint_pos'"):
        make_detector(replace(card, law=servos_of(card_of)))
    with pytest.raises(KoboshiError, match="'joint_torque' must have all joints"):
        make_detector(replace(card, term_joints={**card.term_joints, "joint_torque": backwards}))
    with pytest.raises(KoboshiError, match="'joint_pos' has 2 numbers for 4 joints"):
        make_detector(replace(card, term_joints={}))


def servos_of(card_of):
    return card_of(1).law


def test_one_robot_alone_is_computed_alike_in_numpy(card_of, walk):
    model = make_detector(card_of(96, candidates=["left_hip", "right_knee"]))
    model.fit_scales([walk])
    generator = torch.Generator().manual_seed(0)
    obs = walk["obs.detector"][:200, :1].clone()
    obs[50] *= 300.0  # a fall: every limit is reached
    reset = torch.rand(200, 1, generator=generator) < 0.05
    with torch.inference_mode():
        start = torch.randn(1, 36, generator=generator)
        (batched, *_), end = model(obs, reset, start)
        hidden, rows = start.clone(), []
        for o, r in zip(obs, reset, strict=True):
            before = hidden.clone()
            (logits, *_), after = model.step(o, r if r.any() else None, hidden)
            assert torch.equal(hidden, before), "the state that was given is changed"
            rows.append(logits)
            hidden = after
        assert model._one_robot is not None, "NumPy was not used"
    assert (torch.stack(rows) - batched).abs().max() <= 1e-5 and (hidden - end).abs().max() <= 1e-5
    assert len({row.data_ptr() for row in rows}) == 200, "results share memory"


def test_numpy_follows_changed_weights(card_of, walk):
    model, other = make_detector(card_of(1)), make_detector(card_of(1))
    torch.nn.init.normal_(other.head.weight, std=3.0)
    obs, state = walk["obs.detector"][0, :1], model.initial(1)
    with torch.no_grad():
        model.step(obs, None, state)
        model.load_state_dict(other.state_dict())
        assert torch.allclose(model.step(obs, None, state)[0].logit, other.step(obs, None, state)[0].logit)
        model.train()
        model.head.bias += 1.0
        model.eval()
        assert torch.allclose(model.step(obs, None, state)[0].logit, other.step(obs, None, state)[0].logit + 1.0)


def test_tensors_of_two_devices_never_mix(card_of, walk):
    """Tensors on `meta` hold nothing, but refuse to meet those of another device."""
    model = make_detector(card_of(96)).to("meta")
    obs, reset = walk["obs.detector"][:5].to("meta"), walk["reset"][:5].to("meta")
    (logits, *_), hidden = model(obs, reset, model.initial(96))
    (logits, *_), hidden = model.step(obs[0], reset[0], hidden)
    alarm, _ = alarm_step(AlarmCfg(), logits.sigmoid(), initial_alarms(96, 4, "meta"))
    assert {logits.device.type, hidden.device.type, alarm.device.type} == {"meta"}


def test_a_layout_without_torques_is_refused(card_of):
    layout = [("joint_pos", 0, 4), ("joint_vel", 4, 4), ("last_action", 8, 4), ("imu", 12, 5)]
    with pytest.raises(KoboshiError, match="no observation term 'joint_torque'"):
        FaultDetector(DetectorSpec.from_card(card_of(1, layouts={"detector": layout})))
    with pytest.raises(KoboshiError, match="no actuators' law"):
        DetectorSpec.from_card(card_of(1, law=None))
    with pytest.raises(KoboshiError, match="no observation group with a layout 'detector'"):
        DetectorSpec.from_card(card_of(1, layouts={}))


def test_saved_and_loaded(card_of, walk, tmp_path):
    model, path, alarm = make_detector(card_of(96)), tmp_path / "detector.safetensors", AlarmCfg(0.97, 3)
    model.fit_scales([walk])
    save_detector(path, model, alarm, {"rows": 5})
    loaded, loaded_alarm, meta = load_detector(path, expect_robot="toy", expect_layout=model.spec.layout_hash)
    assert loaded_alarm == alarm and meta["rows"] == 5 and loaded.spec == model.spec
    for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(KoboshiError, match="was made for robot 'toy', not 'unitree_h1'"):
        load_detector(path, expect_robot="unitree_h1")
    with pytest.raises(KoboshiError, match="layout_hash"):
        load_detector(path, expect_layout="0")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(KoboshiError, match=r"detector.safetensors"):
        load_detector(path)


def test_alarms_ask_nothing_of_other_devices(monkeypatch):
    """Reading a tensor back waits for its device; only on the CPU is that cheaper than counting."""

    def asked(*_):
        raise AssertionError("a value was read back")

    monkeypatch.setattr(torch, "equal", asked)
    alarm_step(AlarmCfg(), torch.zeros(2, 3, device="meta"), initial_alarms(2, 3, "meta"))
