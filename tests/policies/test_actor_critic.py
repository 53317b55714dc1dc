"""Stacks of policies: groups, pictures, statistics, and the `Policy` of N environments that they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from koboshi.errors import KoboshiError
from koboshi.nets.actors import FrameStackCfg, GruCfg, MlpCfg
from koboshi.policies import ActorCritic, NetworkCfg, flatten_obs
from koboshi.vec_env import ActionSpace, MirrorMap, ObsSpec

SPEC = {
    "policy": ObsSpec((3,)),
    "critic": ObsSpec((5,)),
    "eyes.left": ObsSpec((3, 2, 2), torch.uint8),
    "other": ObsSpec((9,)),
}


def data(*leading: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        group: torch.randint(256, (*leading, *shape), generator=g, dtype=torch.uint8)
        if dtype == torch.uint8
        else torch.randn(*leading, *shape, generator=g)
        for group, (shape, dtype, _) in SPEC.items()
    }


def test_it_keeps_the_groups_that_it_names_and_falls_back_for_its_critic() -> None:
    policy = ActorCritic(1, SPEC, ActionSpace(2))
    assert policy.obs_spec == {"policy": SPEC["policy"], "critic": SPEC["critic"]}
    blind = ActorCritic(1, {"policy": SPEC["policy"]}, ActionSpace(2))
    assert list(blind.obs_spec) == ["policy"] == list(blind.critic.groups)
    assert blind.value({"policy": torch.randn(1, 4, 3)}).shape == (1, 4)
    with pytest.raises(KoboshiError, match="no observation group 'polcy'; did you mean 'policy'?"):
        ActorCritic(1, SPEC, ActionSpace(2), NetworkCfg(MlpCfg(("polcy",))))


def test_pictures_are_scaled_and_normalised_on_their_own() -> None:
    policy = ActorCritic(2, SPEC, ActionSpace(2), NetworkCfg(MlpCfg(("policy", "eyes.left"), (8,))))
    obs = data(2, 50)
    flat = flatten_obs({group: obs[group] for group in policy.obs_spec})
    picture = flat["eyes.left"]
    assert picture.shape == (2, 50, 12) and 0.9 < picture.max() <= 1
    assert torch.equal(picture * 255, obs["eyes.left"].flatten(2).float())
    policy.update_statistics(flat, None, None)
    torch.testing.assert_close(policy.norm("eyes.left").mean[:, 0], picture.mean(1))
    torch.testing.assert_close(policy.norm("critic").mean[:, 0], obs["critic"].mean(1))
    reset = torch.ones(2, 50, dtype=torch.bool)
    action, state = policy.act(obs, (), reset)
    assert action.shape == (2, 50, 2) and state == ()
    obs["eyes.left"] = 255 - obs["eyes.left"]
    assert not torch.equal(policy.act(obs, (), reset)[0], action)


@pytest.mark.parametrize("actor", [MlpCfg(), FrameStackCfg(frames=3), GruCfg(units=4)], ids=lambda cfg: cfg.kind)
def test_blocks_are_the_members_side_by_side(actor: MlpCfg | FrameStackCfg | GruCfg) -> None:
    stack = ActorCritic(2, SPEC, ActionSpace(2), NetworkCfg(actor))
    stack.actor.requires_grad_(False)
    for parameter in stack.actor.parameters():
        parameter += 0.3 * torch.randn(parameter.shape)
    player, device = stack.blocks(), torch.device("cpu")
    state = player.initial_state(6, device)
    alone = [ActorCritic(1, SPEC, ActionSpace(2), NetworkCfg(actor)) for _ in range(2)]
    for k, policy in enumerate(alone):
        policy.set_member(0, stack.member(k))
    states = [policy.single().initial_state(3, device) for policy in alone]
    for t in range(3):
        reset = torch.tensor([t == 0, t != 1, False] * 2)
        obs = {"policy": torch.randn(6, 3)}
        action, state = player.act(obs, state, reset)
        for k, policy in enumerate(alone):
            rows = slice(3 * k, 3 * k + 3)
            mine, states[k] = policy.single().act({"policy": obs["policy"][rows]}, states[k], reset[rows])
            torch.testing.assert_close(action[rows], mine, rtol=1e-5, atol=1e-6)
    assert isinstance(state, tuple) or state.shape[0] == 6
    with pytest.raises(AssertionError, match="a stack of 2"):
        stack.single()


def test_choices_are_the_most_likely() -> None:
    policy = ActorCritic(1, SPEC, ActionSpace(3, discrete=True), NetworkCfg(MlpCfg(hidden=())))
    policy.actor.network.layers[0].bias.data[0, 0] = torch.tensor([0.0, 5.0, 0.0])
    action, _ = policy.single().act({"policy": torch.zeros(4, 3)}, (), torch.ones(4, dtype=torch.bool))
    assert action.tolist() == [1, 1, 1, 1] and policy.log_std is None


def test_a_mirror_map_by_hand() -> None:
    mirror = MirrorMap({"policy": (torch.tensor([1, 0, 2]), torch.tensor([1.0, 1.0, -1.0]))}, (torch.arange(1),) * 2)
    image = mirror.to(torch.device("cpu")).image({"policy": torch.tensor([[1.0, 2.0, 3.0]]), "critic": torch.ones(1)})
    assert list(image) == ["policy"] and image["policy"].tolist() == [[2, 1, -3]]
