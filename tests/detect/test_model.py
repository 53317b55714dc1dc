import pytest
import torch

from koboshi.detect import AlarmCfg, DetectorCfg, DetectorSpec, FaultDetector, load_detector, save_detector
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
        getattr(gru, f"{name}_l0").data.copy_(getattr(model.gru, name))
    obs, start = walk.obs[:60], torch.randn(96, 36).abs()
    embedded, rows = model._read(obs)
    memory, last = gru(embedded, start[None, :, :32].contiguous())
    evidence, sums = start[:, 32:], []
    for row in rows:
        evidence = (evidence + row).clamp(0, 16)
        sums.append(evidence)
    logits, end = model(obs, torch.zeros(60, 96, dtype=torch.bool), start)
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
        batched, end = model(walk.obs[:120], reset, start)
        first, middle = model(walk.obs[:50], reset[:50], start)
        second, chunked_end = model(walk.obs[50:120], reset[50:], middle)
        hidden, streamed = start, []
        for obs, r in zip(walk.obs[:120], reset, strict=True):
            logits, hidden = model.step(obs, r, hidden)
            streamed.append(logits)
        alone = model.initial(1)
        for t in range(20):
            one, alone = model.step(walk.obs[t, :1], None, alone)
        torch.testing.assert_close(one, model(walk.obs[:20, :1], walk.reset[:20, :1], model.initial(1))[0][-1])
    assert (torch.stack(streamed) - batched).abs().max() <= 1e-5
    assert (torch.cat([first, second]) - batched).abs().max() <= 1e-5
    assert (hidden - end).abs().max() <= 1e-5 and (chunked_end - end).abs().max() <= 1e-5


def test_a_reset_forgets_everything_before_it(card_of, walk):
    model = make_detector(card_of(96))
    reset = torch.ones(1, 96, dtype=torch.bool)
    a, _ = model(walk.obs[:1], reset, torch.randn(96, 36))
    b, _ = model(walk.obs[:1], reset, model.initial(96))
    assert torch.equal(a, b)


def test_joints_that_cannot_fail_stay_silent(card_of, walk):
    card = card_of(96, candidates=["left_hip", "left_knee", "right_hip"])
    model = FaultDetector(DetectorSpec.from_card(card))
    logits, _ = model(walk.obs[:50], walk.reset[:50], model.initial(96))
    assert (logits[..., 3] < -50).all()


def test_a_layout_without_torques_is_refused(card_of):
    card = card_of(1, layout=[("joint_pos", 0, 4), ("joint_vel", 4, 4), ("last_action", 8, 4)])
    with pytest.raises(KoboshiError, match="no observation term 'joint_torque'"):
        FaultDetector(DetectorSpec.from_card(card))


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
