"""A whole controller as one file: loaded it decides the same, where it is used, or one line says why it cannot."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
import torch
from bodies import TINY, heard, mirrors
from torch import Tensor, nn

from koboshi.algos.ppo import GruCfg, NetworkCfg
from koboshi.detect import AlarmCfg, Reading
from koboshi.envs.observations import LayoutEntry
from koboshi.errors import KoboshiError
from koboshi.nets.state_tree import leaves
from koboshi.policies.actor_critic import ActorCritic
from koboshi.policies.storage import policy_meta, save_policy
from koboshi.runs import load_checkpoint, save_checkpoint
from koboshi.specialists import storage
from koboshi.specialists.assignment import assign
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter, HealthyRouter
from koboshi.specialists.storage import StoredController, save_controller, save_switch
from koboshi.specialists.switching import SwitchCfg
from koboshi.vec_env import ActionSpace, MirrorMap, ObsSpec

J = 5
SPEC = {"policy": ObsSpec((6,)), "critic": ObsSpec((4,))}
PAIRS = assign(TINY, "mirrored_pair", cover="healthy")
ALARM = AlarmCfg(threshold=0.7, persistence=1, release_threshold=0.3, release_steps=2)
SWITCH = SwitchCfg(dwell_steps=2, blend_steps=3)
NETWORK = NetworkCfg(GruCfg(units=6, hidden=(7,)), critic_hidden=(8,))


@dataclass(frozen=True)
class WorldCfg:
    actions: float = 0.5


class World:
    """What a controller's file is checked against."""

    def __init__(self, device: str = "cpu", senses: str = "torques", robot: Any = TINY) -> None:
        self.device, self.robot, self.step_dt, self.cfg = torch.device(device), robot, 0.02, WorldCfg()
        self.action_space, self.obs_spec = ActionSpace(J), SPEC | {"detector": ObsSpec((J,))}
        names = {"policy": "joints", "critic": "truth", "detector": senses}
        self.layouts = {group: (LayoutEntry(name, 0, *self.obs_spec[group].shape, 1),) for group, name in names.items()}

    def mirror_map(self, groups: tuple[str, ...]) -> MirrorMap:
        return mirrors(TINY, {group: SPEC[group].shape[0] for group in groups})


@dataclass(frozen=True)
class EarsSpec:
    joint_names: list[str]
    kinds = ("torque_loss",)
    layout: list[tuple[str, int, int]]

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> EarsSpec:
        return cls(raw["joint_names"], [tuple(entry) for entry in raw["layout"]])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class EarsCfg:
    gain: float = 3.0


class Ears(nn.Module):
    """A small detector."""

    tells = False

    def __init__(self, spec: EarsSpec, cfg: EarsCfg) -> None:
        super().__init__()
        self.spec, self.cfg = spec, cfg
        self.weight = nn.Parameter(torch.zeros(J))

    def initial(self, num_envs: int) -> Tensor:
        return self.weight.new_zeros(num_envs, J)

    def step(self, obs: Tensor, reset: Tensor | None, hidden: Tensor) -> tuple[Reading, Tensor]:
        return heard(self.cfg.gain * obs * self.weight), hidden


@pytest.fixture(autouse=True)
def toy_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    toys = {"build_detector": Ears, "DetectorSpec": EarsSpec, "cfg_to_dict": asdict}
    for name, toy in (toys | {"cfg_from_dict": lambda raw: EarsCfg(**raw)}).items():
        monkeypatch.setattr(storage, name, toy)


def policies(members: int, seed: int) -> ActorCritic:
    torch.manual_seed(seed)
    stack = ActorCritic(members, SPEC, ActionSpace(J), NETWORK)
    for value in stack.parameters():
        value.data.copy_(0.5 * torch.randn(value.shape))
    return stack.eval().requires_grad_(False)


def parts() -> tuple[ActorCritic, ActorCritic, Ears]:
    detector = Ears(EarsSpec(list(TINY.joint_names), [("torques", 0, J)]), EarsCfg())
    detector.weight.data.fill_(1.3)
    return policies(1, 0), policies(len(PAIRS.members), 1), detector.requires_grad_(False)


@pytest.fixture
def file(tmp_path):
    healthy, bank, detector = parts()
    meta = policy_meta(World(), "toy", healthy, [m.name for m in PAIRS.members])
    save_controller(tmp_path / "controller.safetensors", meta, healthy, bank, PAIRS, detector, ALARM, SWITCH)
    return tmp_path / "controller.safetensors"


def test_the_same_decisions_after_loading(file) -> None:
    healthy, bank, detector = parts()
    router = DetectorRouter(detector, ALARM, PAIRS, TINY, SWITCH.dwell_steps)
    mirror = World().mirror_map(("policy",))
    before = Controller(healthy.single(), SpecialistBank(bank, PAIRS, mirror), router, SWITCH.blend_steps)
    stored = StoredController(file, World())
    after, quiet = stored.learned(), stored.routed_by(HealthyRouter(J))
    assert (stored.assignment, stored.alarm, stored.switch, stored.robot) == (PAIRS, ALARM, SWITCH, TINY)
    states, members = [c.initial_state(3) for c in (before, after, quiet)], set()
    for t in range(100):
        obs = {"policy": torch.randn(3, 6), "detector": torch.randn(3, J) - 0.5}
        reset = torch.rand(3) < (1.0 if t == 0 else 0.1)
        one, states[0] = before.act(obs, reset, states[0])
        other, states[1] = after.act(obs, reset, states[1])
        alone, states[2] = quiet.act(obs, reset, states[2])
        assert all(torch.equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))
        assert (alone.route.member == -1).all()
        members |= set(one.route.member.tolist())
    assert members == {-1, 0, 1, 2}, "hardly a switch: the test says little"


def test_other_settings_of_the_switch_in_the_same_file(file) -> None:
    alarm, switch = replace(ALARM, release_steps=9), SwitchCfg(dwell_steps=7)
    before = load_checkpoint(file)[0]
    save_switch(file, file, alarm, switch)
    stored = StoredController(file, World())
    assert (stored.alarm, stored.switch) == (alarm, switch)
    assert all(torch.equal(value, before[name]) for name, value in load_checkpoint(file)[0].items())


def test_a_file_from_before_the_switch_had_settings_switches_at_once(file) -> None:
    tensors, meta = load_checkpoint(file)
    save_checkpoint(file, tensors, {name: value for name, value in meta.items() if name != "switch"})
    assert StoredController(file, World()).switch == SwitchCfg(0, 0)


@pytest.mark.parametrize("explicit", [False, True])
def test_all_parts_lie_where_they_are_used(file, explicit: bool) -> None:
    stored = StoredController(file, World(), "meta") if explicit else StoredController(file, World("meta"))
    modules = (stored.healthy.stack, stored.bank.policy, stored.detector)
    tensors = [x for module in modules for x in module.state_dict().values()]
    mirror = stored.bank._mirror._map
    tensors += [*mirror.action, *(x for pair in mirror.obs.values() for x in pair)]
    assert {x.device.type for x in tensors} == {"meta"}
    assert not any(module.training for module in modules)


def test_files_that_do_not_fit(file, tmp_path) -> None:
    with pytest.raises(KoboshiError, match="observation group 'detector': torques 5, not speeds 5"):
        StoredController(file, World(senses="speeds"))
    deaf = World()
    del deaf.obs_spec["detector"]
    with pytest.raises(KoboshiError, match=r"observation group 'detector': torques 5, not \(none\)"):
        StoredController(file, deaf)
    with pytest.raises(KoboshiError, match="was made for robot 'tiny', not 'other'"):
        StoredController(file, World(robot=replace(TINY, name="other")))
    healthy, other = parts()[0], tmp_path / "policy.safetensors"
    save_policy(other, healthy.state_dict(), policy_meta(World(), "toy", healthy, ["healthy"]))
    with pytest.raises(KoboshiError, match="policy.safetensors"):
        StoredController(other, World())


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("detector.weight", "missing weight"),
        ("bank.log_std", "the bank network of .*missing log_std"),
        ("healthy.log_std", "the healthy network of .*missing log_std"),
    ],
)
def test_files_that_lack_a_tensor(file, tmp_path, part: str, message: str) -> None:
    tensors, meta = load_checkpoint(file)
    del tensors[part]
    save_checkpoint(tmp_path / "cut.safetensors", tensors, meta)
    with pytest.raises(KoboshiError, match=message):
        StoredController(tmp_path / "cut.safetensors", World())


@pytest.mark.parametrize("key", ["assignment", "alarm", "detector_spec", "detector_cfg"])
def test_files_of_another_version(file, tmp_path, key: str) -> None:
    tensors, meta = load_checkpoint(file)
    save_checkpoint(tmp_path / "old.safetensors", tensors, {k: v for k, v in meta.items() if k != key})
    with pytest.raises(KoboshiError, match=f"written by another version of koboshi: KeyError\\('{key}'\\)"):
        StoredController(tmp_path / "old.safetensors", World())


def test_a_file_for_joints_that_the_robot_lacks(file) -> None:
    legless = replace(TINY, joint_names=("torso",))
    with pytest.raises(KoboshiError, match="no joint 'left_knee'"):
        StoredController(file, World(robot=legless)).learned()
