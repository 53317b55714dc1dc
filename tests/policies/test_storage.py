"""Policy files: what they say about themselves, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from koboshi.envs.observations import LayoutEntry
from koboshi.errors import KoboshiError
from koboshi.policies import ActorCritic, MlpCfg, NetworkCfg
from koboshi.policies.storage import load_policy, load_single, load_weights, policy_meta, save_policy
from koboshi.runs import load_checkpoint, save_checkpoint
from koboshi.vec_env import ActionSpace, ObsSpec


class Named(NamedTuple):
    name: str


@dataclass(frozen=True)
class Position:
    scale: float = 0.5


@dataclass(frozen=True)
class Torque:
    scale: float = 0.5


@dataclass(frozen=True)
class Cfg:
    actions: dict[str, Position | Torque] = field(default_factory=lambda: {"legs": Position()})


LAYOUTS = {
    "policy": (LayoutEntry("gravity", 0, 3, 1), LayoutEntry("joint_pos", 3, 4, 1)),
    "critic": (LayoutEntry("all", 0, 9, 3),),
}


@dataclass(frozen=True)
class Env:
    """Only what an environment says about itself; it has no group `detector`."""

    robot: Named = Named("toy")
    step_dt: float = 0.02
    cfg: Cfg = Cfg()
    layouts: Any = field(default_factory=lambda: dict(LAYOUTS))
    device: torch.device = torch.device("cpu")
    action_space: ActionSpace = ActionSpace(2, False, (-1.0, -2.0), (1.0, 2.0))

    @property
    def obs_spec(self) -> dict[str, ObsSpec]:
        return {group: ObsSpec((sum(e.width for e in layout),)) for group, layout in self.layouts.items()}


def policy(members: int = 1, env: Env = Env(), hidden: int = 8, seed: int = 0) -> ActorCritic:  # noqa: B008 (frozen)
    """One whose weights and normalisers differ in every number."""
    made = ActorCritic(members, env.obs_spec, env.action_space, NetworkCfg(actor=MlpCfg(hidden=(hidden,))))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return made


def saved(path: Path, members: tuple[str, ...] = ("healthy",), env: Env = Env(), **meta: Any) -> ActorCritic:  # noqa: B008
    made = policy(len(members), env)
    save_policy(path, made.state_dict(), policy_meta(env, "toy-task", made, list(members)) | meta)
    return made


def test_a_policy_comes_back_with_every_number(tmp_path: Path) -> None:
    made = saved(tmp_path / "a.safetensors", ("left", "right"))
    found, meta = load_policy(tmp_path / "a.safetensors", Env())
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in found.state_dict().items())
    assert found.members == 2 and found.cfg == made.cfg and found.action_space == made.action_space
    assert not any(p.requires_grad for p in found.parameters()) and not found.training
    assert meta["members"] == ["left", "right"] and meta["task"] == "toy-task"
    assert meta["action"] == {"legs": {"type": "Position", "scale": 0.5}}


def test_only_the_groups_that_the_policy_names_are_written_down(tmp_path: Path) -> None:
    env = Env(layouts={**LAYOUTS, "detector": (LayoutEntry("torque", 0, 5, 1),)})
    saved(tmp_path / "a.safetensors", env=env)
    meta = load_checkpoint(tmp_path / "a.safetensors")[1]
    assert meta["layouts"] == {
        "policy": [["gravity", 0, 3, 1], ["joint_pos", 3, 4, 1]],
        "critic": [["all", 0, 9, 3]],
    }
    assert meta["obs"] == {"policy": [[7], "float32"], "critic": [[9], "float32"]}
    # What others listen to may change, or be gone.
    load_policy(tmp_path / "a.safetensors", Env())


def test_it_lies_where_it_is_used(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors")
    elsewhere = replace(Env(), device=torch.device("meta"))
    found, _ = load_policy(tmp_path / "a.safetensors", elsewhere)
    assert {p.device.type for p in found.parameters()} == {"meta"}
    found, _ = load_single(tmp_path / "a.safetensors", elsewhere, "cpu")
    assert {p.device.type for p in found.parameters()} == {"cpu"}


def layouts(**changed: tuple[LayoutEntry, ...]) -> Env:
    return Env(layouts=LAYOUTS | changed)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (replace(Env(), robot=Named("other")), "was made for robot 'toy', not 'other'"),
        (replace(Env(), step_dt=0.01), "was made for control_dt 0.02, not 0.01"),
        (replace(Env(), cfg=Cfg({"legs": Position(0.25)})), "was made for action {'legs': "),
        (replace(Env(), cfg=Cfg({"legs": Torque()})), "'type': 'Torque'"),
        (
            layouts(policy=(LayoutEntry("joint_pos", 0, 4, 1), LayoutEntry("gravity", 4, 3, 1))),
            "another layout of observation group 'policy': gravity 3, joint_pos 4, not joint_pos 4, gravity 3",
        ),
        (
            layouts(critic=(LayoutEntry("all", 0, 9, 1),)),
            "'critic': all 9, not all 9 ('all' has 9 numbers and a history of 3, not 9 and 1)",
        ),
        (
            layouts(critic=(LayoutEntry("all", 0, 9, 3, scale=0.05),)),
            "'critic': all 9, not all 9 ('all' has scale 1.0 and clip None, not 0.05 and None)",
        ),
        (Env(layouts={"policy": LAYOUTS["policy"]}), "'critic': all 9, not (none)"),
        (
            layouts(
                critic=(LayoutEntry("all", 0, 9, 1), LayoutEntry("all-1", 9, 9, 1), LayoutEntry("all-2", 18, 9, 1))
            ),
            "'critic': all 9, not all 9, each 3 times (a history of 1 steps, not 3)",
        ),
    ],
)
def test_what_was_made_for_something_else_is_refused(tmp_path: Path, env: Env, says: str) -> None:
    saved(tmp_path / "a.safetensors")
    with pytest.raises(KoboshiError) as error:
        load_policy(tmp_path / "a.safetensors", env)
    assert says in str(error.value)


def test_a_history_in_another_order_is_refused(tmp_path: Path) -> None:
    newest, oldest = (
        layouts(critic=(LayoutEntry(first, 0, 9, 1), LayoutEntry(second, 9, 9, 1)))
        for first, second in (("all", "all-1"), ("all-1", "all"))
    )
    saved(tmp_path / "a.safetensors", env=newest)
    with pytest.raises(KoboshiError, match=r"all 9, each 2 times \(its steps are in another order\)"):
        load_policy(tmp_path / "a.safetensors", oldest)


def test_actions_may_arrive_later_than_in_training(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    made = saved(path, env=Env(cfg=Cfg({"legs": Position(), "delay": (0, 0)})))
    found, _ = load_policy(path, Env(cfg=Cfg({"legs": Position(), "delay": (0, 4)})))
    assert torch.equal(found.log_std, made.log_std)
    with pytest.raises(KoboshiError, match="was made for action"):
        load_policy(path, Env(cfg=Cfg({"legs": Position(0.3), "delay": (0, 0)})))


@pytest.mark.parametrize("changed", [{"layouts": None}, {"obs": {"policy": 7}}, {"network": 3}, {"actions": {"n": 2}}])
def test_what_another_version_wrote_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    saved(tmp_path / "a.safetensors", **changed)
    with pytest.raises(KoboshiError, match="a.safetensors was written by another version of koboshi"):
        load_policy(tmp_path / "a.safetensors", Env())


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors")
    tensors, meta = load_checkpoint(tmp_path / "a.safetensors")
    del tensors["policy.log_std"]
    save_checkpoint(tmp_path / "a.safetensors", tensors, meta)
    with pytest.raises(KoboshiError, match="these weights do not fit the policy network of .*: missing log_std$"):
        load_policy(tmp_path / "a.safetensors", Env())


def test_a_bank_is_no_single_policy(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", ("left", "right"))
    with pytest.raises(KoboshiError, match="is a bank of 2 specialists, and one policy is wanted; .*: left, right"):
        load_single(tmp_path / "a.safetensors", Env())


# A new run from old weights


def test_the_whole_actor_critic_is_loaded_under_other_settings(tmp_path: Path) -> None:
    made = saved(tmp_path / "a.safetensors")
    other = replace(Env(), step_dt=0.01, cfg=Cfg({"legs": Position(0.25)}))
    mine = policy(env=other, seed=1)
    load_weights(tmp_path / "a.safetensors", mine, other, ["healthy"])
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in mine.state_dict().items())


@pytest.mark.parametrize(
    ("make", "env", "members", "says"),
    [
        (lambda: policy(hidden=9), Env(), ["healthy"], "network.actor.hidden: [8] -> [9]"),
        (lambda: policy(hidden=9), Env(), ["healthy"], "(1, 7, 8), not (1, 7, 9)"),
        (policy, Env(), ["knee"], "holds policies of 1 (healthy) members, not of 1 (knee)"),
        (policy, replace(Env(), robot=Named("other")), ["healthy"], "was made for robot 'toy', not 'other'"),
        (
            policy,
            layouts(policy=(LayoutEntry("gravity", 0, 2, 1), LayoutEntry("joint_pos", 2, 5, 1))),
            ["healthy"],
            "('gravity' has 3 numbers and a history of 1, not 2 and 1)",
        ),
    ],
)
def test_weights_of_another_shape_are_refused_by_the_number_that_differs(
    tmp_path: Path, make: Callable[[], ActorCritic], env: Env, members: list[str], says: str
) -> None:
    saved(tmp_path / "a.safetensors")
    mine = make()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    with pytest.raises(KoboshiError) as error:
        load_weights(tmp_path / "a.safetensors", mine, env, members)
    assert says in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())
