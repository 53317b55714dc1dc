from dataclasses import replace

import pytest
import torch

from koboshi.data import Sequences
from koboshi.detect import (
    DetectorCfg,
    DetectorSpec,
    DetectorTrainCfg,
    DetectorTrainer,
    FaultDetector,
    Mirror,
    calibrate,
    evaluate_detector,
    judge_all,
    train_detector,
)
from koboshi.detect.base import sample_rows
from koboshi.detect.train import row_weights
from koboshi.errors import KoboshiError

SMALL = DetectorCfg(embed=24, hidden=32)
SIDES = torch.tensor([2, 3, 0, 1])
MIRROR = Mirror(torch.cat([torch.tensor([0])] + [1 + 4 * i + SIDES for i in range(4)]), torch.ones(17), SIDES)


def make_trainer(walk, mirror=None, **changes):
    cfg = DetectorTrainCfg(**{"epochs": 1.0, "batch_envs": 32, "chunk": 25, **changes})
    torch.manual_seed(0)
    model = FaultDetector(DetectorSpec.from_card(walk.card), SMALL)
    model.fit_scales([walk])
    return DetectorTrainer(model, [walk], cfg, mirror)


def test_it_learns_which_joint_died(walk, other_walk):
    seen = []
    cfg = DetectorTrainCfg(epochs=12, batch_envs=48, chunk=25, learning_rate=1e-2)
    model = train_detector([walk], SMALL, cfg, report=lambda i, n, v: seen.append((i, n, v["loss"])))
    assert seen[-1][0] == seen[-1][1] == len(seen) and seen[-1][2] < 0.3 * seen[0][2]
    alarm = calibrate(judge_all(model, [walk]), false_alarms_per_hour=0.1)
    result = evaluate_detector(model, [other_walk], alarm, with_curve=False)
    assert result["episodes"] == "test"
    assert result["recall"] >= 0.98 and result["delay_ms_median"] <= 60, result
    assert result["macro_f1"] >= 0.95 and result["false_alarms"] <= 4, result


@pytest.mark.parametrize("mirror", [None, MIRROR])
def test_killed_and_resumed_gives_the_same_numbers(walk, tmp_path, mirror):
    whole = make_trainer(walk, mirror)
    whole.run()
    first = make_trainer(walk, mirror)
    first.run(until=20)
    second = make_trainer(walk, mirror)
    second.load_state_dict(first.state_dict())
    second.run()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("mirror", [None, MIRROR])
def test_parts_learn_what_the_whole_learns(walk, mirror, cores):
    states, losses = [], []
    for count in (1, 3):
        cores(count)
        trainer = make_trainer(walk, mirror)
        trainer.run(until=8, report=lambda i, n, values: losses.append(values["loss"]))
        states.append(trainer.state_dict())
    assert losses[8:] == pytest.approx(losses[:8], rel=1e-4)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_file_of_a_killed_training_is_taken_up(walk, tmp_path):
    cfg, path = DetectorTrainCfg(epochs=0.3, batch_envs=32, chunk=25), tmp_path / "training.safetensors"
    whole = train_detector([walk], SMALL, cfg)

    def kill(iteration, total, values):
        if iteration == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_detector([walk], SMALL, cfg, report=kill, checkpoint=path, save_every=4)
    later = []
    report = lambda i, n, v: later.append(i)  # noqa: E731
    resumed = train_detector([walk], SMALL, cfg, report=report, checkpoint=path, save_every=4)
    assert later[0] == 9
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other = DetectorTrainCfg(epochs=0.3, batch_envs=32, chunk=25, seed=5)
    with pytest.raises(KoboshiError, match="was made for train_cfg"):
        train_detector([walk], SMALL, other, checkpoint=path)
    part = walk.part.clone()
    part[:, 0] = 2
    with pytest.raises(KoboshiError, match="was made for data"):
        train_detector([replace(walk, part=part)], SMALL, cfg, checkpoint=path)


def test_a_training_begins_with_the_weights_that_it_is_given(walk, tmp_path):
    cfg, path = DetectorTrainCfg(epochs=0.3, batch_envs=32, chunk=25), tmp_path / "training.safetensors"
    first, other = train_detector([walk], SMALL, cfg), train_detector([walk], SMALL, replace(cfg, seed=5))
    still = replace(cfg, learning_rate=1e-12, seed=7)
    again = train_detector([walk], SMALL, still, start=first)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)
    assert not torch.equal(again.head.weight, train_detector([walk], SMALL, still).head.weight)
    train_detector([walk], SMALL, cfg, checkpoint=path, start=first)
    with pytest.raises(KoboshiError, match="was made for start"):
        train_detector([walk], SMALL, cfg, checkpoint=path, start=other)
    wide = replace(SMALL, hidden=2 * SMALL.hidden)
    with pytest.raises(KoboshiError, match="these weights do not fit this detector"):
        train_detector([walk], wide, cfg, start=first)


def test_a_state_of_another_network_is_refused(walk):
    state = make_trainer(walk).state_dict()
    trainer = DetectorTrainer(FaultDetector(DetectorSpec.from_card(walk.card)), [walk])
    with pytest.raises(KoboshiError, match="do not fit this detector"):
        trainer.load_state_dict(state)


def test_every_lane_is_visited_once_a_round_and_carries_its_own_state(walk):
    trainer = make_trainer(walk, MIRROR, epochs=100.0)
    before = trainer.position.clone()
    trainer.run(until=6)  # 2 sides x 96 environments in batches of 32
    assert torch.equal(trainer.position, (before + 25) % 400)
    assert trainer.hidden.abs().sum(1).min() > 0


def test_mirrored_lanes_show_the_mirrored_robot(walk):
    trainer = make_trainer(walk, MIRROR)
    trainer.position.zero_()
    obs, severity, *_ = trainer._gather(torch.arange(96, 100))
    pos = slice(1, 5)
    assert torch.equal(obs[:, 2, pos], walk["obs.detector"][:25, 2, pos][:, SIDES])
    assert torch.equal(severity[:, 2], walk["severity"][:25, 2][:, SIDES])


def test_weights_by_hand(walk):
    cfg = DetectorTrainCfg(onset_window_s=0.1)
    weight = row_weights(walk, cfg)
    env = int((walk["severity"][:150] > 0).any(-1).any(0).nonzero()[0])
    onset = int((walk["severity"][:, env] > 0).any(-1).nonzero()[0])
    assert weight[onset - 1 : onset + 6, env].tolist() == pytest.approx([1, 3, 3, 3, 3, 3, 0.3])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"candidates": ["left_knee"]}, "have candidates .'left_knee'., and the detector's is"),
        ({"control_dt": 0.01}, "have control_dt 0.01, and the detector's is 0.02"),
        ({"scaled": {"detector.joint_vel": (0.05, None)}}, "SI units: '?(observation '?)?detector.joint_vel'? must"),
    ],
)
def test_data_of_another_kind_are_neither_learnt_from_nor_judged(walk, changed, says):
    other = Sequences(replace(walk.card, **changed), walk.columns, walk.part)
    with pytest.raises(KoboshiError, match=says):
        train_detector([walk, other], SMALL)
    model = FaultDetector(DetectorSpec.from_card(walk.card), SMALL)
    with pytest.raises(KoboshiError, match=says):
        judge_all(model, [other])


@pytest.mark.parametrize("part", [1, 2, -1])
def test_only_training_episodes_train(walk, part):
    held_out = replace(walk, part=torch.full_like(walk.part, part))
    with pytest.raises(KoboshiError, match="no training episodes"):
        train_detector([held_out], SMALL)
    with pytest.raises(KoboshiError, match="no training episodes"):
        DetectorTrainer(FaultDetector(DetectorSpec.from_card(walk.card)), [held_out])
    some = walk.part.clone()
    some[:, 40:] = part
    mixed = replace(walk, part=some)
    assert not row_weights(mixed, DetectorTrainCfg())[:, 40:].any()
    assert (row_weights(mixed, DetectorTrainCfg())[:, :40] > 0).all()
    sampled, heard = sample_rows([mixed], 10**6, seed=0), walk["obs.detector"]
    assert torch.isin(sampled.obs[:, 0], heard[:, :40, 0]).all(), "scales are fitted to other episodes"
    follows = {(a.item(), b.item()) for a, b in zip(heard[:-1, :, 0].flatten(), heard[1:, :, 0].flatten(), strict=True)}
    pairs = zip(sampled.before[:, 0].tolist(), sampled.obs[:, 0].tolist(), strict=True)
    assert set(pairs) <= follows, "the row before is another one"


def test_bad_numbers_are_refused():
    with pytest.raises(KoboshiError, match="detector chunk is 0"):
        DetectorTrainCfg(chunk=0)


def test_training_mixes_no_two_devices(walk):
    """Rows lie on the CPU, all else on `meta`, whose tensors refuse to meet those of another device."""
    model = FaultDetector(DetectorSpec.from_card(walk.card), SMALL).to("meta")
    trainer = DetectorTrainer(model, [walk], DetectorTrainCfg(batch_envs=32, chunk=5), MIRROR)
    for lanes in (torch.arange(32), torch.arange(96, 128)):  # both sides
        loss = trainer._backward(lanes)
        assert loss.device.type == trainer.hidden.device.type == "meta"
    trainer.optimiser.step()


def test_a_training_may_be_resumed_on_another_device(walk, tmp_path):
    path = tmp_path / "training.safetensors"
    cfg = DetectorTrainCfg(epochs=0.1, batch_envs=32, chunk=25)
    train_detector([walk], SMALL, cfg, checkpoint=path)
    train_detector([walk], SMALL, replace(cfg, device="cuda"), checkpoint=path, device="cpu")
