"""Actors that carry something: one step at a time equals the whole sequence, and each equals a reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from koboshi.config import from_dict, override, to_dict
from koboshi.errors import KoboshiError
from koboshi.nets.actors import Actor, FrameStackCfg, GruCfg, MlpCfg
from koboshi.policies import NetworkCfg
from koboshi.vec_env import ObsSpec

K, T, B = 2, 7, 3
SPECS = {"senses": ObsSpec((4,)), "eyes.left": ObsSpec((1, 2, 2))}
CFGS = [
    MlpCfg(tuple(SPECS), (8,)),
    FrameStackCfg(tuple(SPECS), frames=3, hidden=(8,)),
    GruCfg(tuple(SPECS), units=5, hidden=(8,)),
]


def build(cfg: MlpCfg | FrameStackCfg | GruCfg, members: int = K) -> Actor:
    torch.manual_seed(1)
    actor: Actor = cfg.build(members, SPECS, 2)
    for parameter in actor.parameters():
        nn.init.normal_(parameter, std=0.5)
    return actor


def data() -> tuple[dict[str, Tensor], Tensor]:
    g = torch.Generator().manual_seed(0)
    obs = {"senses": torch.randn(K, T, B, 4, generator=g), "eyes.left": torch.randn(K, T, B, 4, generator=g)}
    reset = torch.rand(K, T, B, generator=g) < 0.3
    return obs, reset


@pytest.mark.parametrize("cfg", CFGS, ids=lambda cfg: cfg.kind)
def test_streamed_equals_sequence_with_resets_and_a_state_to_begin_with(cfg: MlpCfg | FrameStackCfg | GruCfg) -> None:
    actor, (obs, reset) = build(cfg), data()
    assert reset.any() and not reset[:, 0].all()
    first = {group: x[:, 0] for group, x in obs.items()}
    _, start = actor(first, actor.initial_state(B), torch.ones(K, B, dtype=torch.bool))
    whole, end = actor.sequence(obs, start, reset)
    state, rows = start, []
    for t in range(T):
        output, state = actor({group: x[:, t] for group, x in obs.items()}, state, reset[:, t])
        rows.append(output)
    torch.testing.assert_close(torch.stack(rows, dim=1), whole, rtol=1e-5, atol=1e-6)
    assert actor.carries == isinstance(end, Tensor)
    if actor.carries:
        torch.testing.assert_close(state, end)


@pytest.mark.parametrize("cfg", CFGS[1:], ids=lambda cfg: cfg.kind)
def test_nothing_is_carried_over_a_reset(cfg: FrameStackCfg | GruCfg) -> None:
    actor, (obs, reset) = build(cfg), data()
    reset[:, 3] = True
    other = {group: torch.cat((x[:, :3] + 1, x[:, 3:]), dim=1) for group, x in obs.items()}
    outputs = [actor.sequence(each, actor.initial_state(B), reset)[0] for each in (obs, other)]
    assert not torch.isclose(outputs[0][:, :3], outputs[1][:, :3]).any()
    assert torch.equal(outputs[0][:, 3:], outputs[1][:, 3:])
    reset[:, 3] = False  # and without the reset it is
    outputs = [actor.sequence(each, actor.initial_state(B), reset)[0] for each in (obs, other)]
    assert not torch.equal(outputs[0][:, 3], outputs[1][:, 3])


@pytest.mark.parametrize("cfg", CFGS, ids=lambda cfg: cfg.kind)
def test_a_stack_equals_its_members(cfg: MlpCfg | FrameStackCfg | GruCfg) -> None:
    stack, (obs, reset) = build(cfg), data()
    whole, _ = stack.sequence(obs, stack.initial_state(B), reset)
    for k in range(K):
        one = build(cfg, members=1)
        one.load_state_dict({name: x[k : k + 1] for name, x in stack.state_dict().items()})
        part = {group: x[k : k + 1] for group, x in obs.items()}
        alone, _ = one.sequence(part, one.initial_state(B), reset[k : k + 1])
        torch.testing.assert_close(alone[0], whole[k], rtol=1e-5, atol=1e-6)


def test_frames_by_hand_oldest_first_and_refilled_at_a_reset() -> None:
    actor = FrameStackCfg(("x",), frames=3, hidden=()).build(1, {"x": ObsSpec((1,))}, 3)
    layer = actor.network.layers[0]
    layer.weight.data[0] = torch.eye(3)
    x = torch.tensor([1.0, 2, 3, 4, 5, 6]).view(1, 6, 1, 1)
    reset = torch.tensor([True, False, False, False, True, False]).view(1, 6, 1)
    output, state = actor.sequence({"x": x}, actor.initial_state(1), reset)
    assert output[0, :, 0].tolist() == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4], [5, 5, 5], [5, 5, 6]]
    assert state.flatten().tolist() == [5, 6]


def test_a_gru_equals_torchs() -> None:
    actor = build(GruCfg(tuple(SPECS), units=5, hidden=()), members=1)
    reference = nn.GRU(8, 5)
    for ours, input_or_hidden in ((actor.inputs, "ih"), (actor.memory, "hh")):  # type: ignore[attr-defined]
        getattr(reference, f"weight_{input_or_hidden}_l0").data = ours.weight.data[0].T
        getattr(reference, f"bias_{input_or_hidden}_l0").data = ours.bias.data[0, 0]
    x = torch.randn(T, B, 8)
    state, rows = actor.initial_state(B), []
    reset = torch.zeros(1, B, dtype=torch.bool)
    for t in range(T):
        _, state = actor({"senses": x[None, t, :, :4], "eyes.left": x[None, t, :, 4:]}, state, reset)
        rows.append(state[0])
    torch.testing.assert_close(torch.stack(rows), reference(x)[0])


def test_settings_are_checked_and_come_back_from_a_file() -> None:
    with pytest.raises(KoboshiError, match="actor.frames must be at least 1, not 0"):
        override(NetworkCfg(FrameStackCfg()), ["actor.frames=0"])
    for cfg in (FrameStackCfg(frames=7), GruCfg(units=9), MlpCfg(hidden=(3,))):
        network = NetworkCfg(cfg, critic_hidden=(5,))
        assert from_dict(NetworkCfg(), to_dict(network)) == network
    with pytest.raises(
        KoboshiError, match="actor.type: expected 'MlpCfg' or 'FrameStackCfg' or .* or 'RmaCfg', got 'LstmCfg'"
    ):
        from_dict(NetworkCfg(), {"actor": {"type": "LstmCfg"}})
