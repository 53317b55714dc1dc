"""Groups, layouts, delays, histories, noise, images: the observation manager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import worlds
from torch import Tensor

from biped import biped
from koboshi import robots
from koboshi.envs import Env
from koboshi.envs.cfg import ObsGroup, ObsTerm, RewardTerm
from koboshi.envs.terms import observations, rewards
from koboshi.envs.terms.observations import mirrored
from koboshi.errors import KoboshiError
from koboshi.vec_env import ObsSpec, Place, VecEnv

N, J = 4, 12


@mirrored("same")
def clock(env: Env) -> Tensor:
    """(N, 2) steps of the episode, and the environment's number: a value that says when and whose it is."""
    return torch.stack((env.episode_step.float(), torch.arange(env.num_envs).float()), dim=1)


def picture(env: Env, shade: int = 0) -> Tensor:
    """(N, 3, 4, 4) uint8: the step of the episode in all pixels, the environment's number in the first."""
    image = env.episode_step.to(torch.uint8)[:, None, None, None].repeat(1, 3, 4, 4) + shade
    image[:, 0, 0, 0] = torch.arange(env.num_envs)
    return image


def grouped(episode_length_s: float = 20.0, **groups: ObsGroup) -> Env:
    return Env(worlds.go2(num_envs=N, observations=groups, episode_length_s=episode_length_s))


def with_terms(episode_length_s: float = 20.0, **terms: ObsTerm) -> Env:
    """An environment that observes the given terms in the group `policy`, and a group on top of it."""
    more = ObsGroup({"extra": ObsTerm(clock)}, base="policy")
    return grouped(episode_length_s, policy=ObsGroup(dict(terms)), more=more)


def run(env: Env, steps: int) -> list[dict[str, Tensor]]:
    """The observations of a reset and of so many steps."""
    return [env.reset(0), *(env.step(torch.zeros(N, J)).obs for _ in range(steps))]


@pytest.fixture(scope="module")
def walk() -> Env:
    return Env(worlds.go2(num_envs=N))


def test_sizes_and_layouts(walk: Env) -> None:
    assert isinstance(walk, VecEnv)
    sizes = {"policy": 48, "critic": 57, "detector": 60, "fault": 12}
    assert {n: (s.shape, s.dtype) for n, s in walk.obs_spec.items()} == {
        n: ((d,), torch.float32) for n, d in sizes.items()
    }
    gravity = walk.obs_spec["policy"].place("projected_gravity")
    torch.testing.assert_close(walk.reset(0)["critic"][:, gravity], walk.state.projected_gravity)
    obs = walk.reset(0)
    assert list(obs) == list(walk.obs_spec)
    for group, layout in walk.layouts.items():
        assert obs[group].shape == (N, sizes[group])
        assert obs[group].dtype == torch.float32
        columns = [c for entry in layout for c in range(sizes[group])[entry.place.slice]]
        assert columns == list(range(sizes[group])), "each column once, in order"
    assert [(e.name, e.start, e.width) for e in walk.layouts["detector"]] == [
        ("base_lin_vel", 0, 3),
        ("base_ang_vel", 3, 3),
        ("projected_gravity", 6, 3),
        ("command", 9, 3),
        ("joint_pos", 12, 12),
        ("joint_vel", 24, 12),
        ("last_action", 36, 12),
        ("joint_torque", 48, 12),
    ]


def test_a_sensor_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    own = '<sensor><clock name="clock"/><gyro name="gyro" site="imu"/></sensor></mujoco>'
    robot = biped(("</mujoco>", own), sensors=("gyro",))
    monkeypatch.setitem(robots._ROBOTS, robot.name, robot)
    groups = {"policy": ObsGroup({"gyro": ObsTerm(observations.sensor, params={"name": "gyro"})})}
    cfg = worlds.cfg_for(robot, worlds.go2().actions, num_envs=2, observations=groups, decimation=1)
    env = Env(cfg)
    env.reset(0)
    for _ in range(3):
        before = env.state.base_ang_vel.clone()
        obs = env.step(torch.tensor([[0.5, 0.0, -0.5, 1.0], [0.0, 0.0, 0.0, 0.0]])).obs
    # The site lies in the base's axes; what a sensor reads is a physics step old.
    torch.testing.assert_close(obs["policy"], before, rtol=1e-4, atol=1e-5)
    assert before[0].abs().max() > 0.1 and not torch.equal(before, env.state.base_ang_vel)
    with pytest.raises(KoboshiError, match="no sensor 'clock'; sensors: gyro, left_foot_contact"):
        env.sensor("clock")
    with pytest.raises(KoboshiError, match="observation 'gyro' does not say how it mirrors"):
        env.mirror_map(("policy",))
    assert (env.sensor("left_foot_contact") > 1).squeeze(1).tolist() == env.state.foot_contact[:, 0].tolist()


def test_a_group_begins_with_its_bases_very_numbers(walk: Env) -> None:
    walk.reset(0)
    walk.episode_step[1] = walk.cfg.max_episode_length - 2
    ended = 0
    for _ in range(4):
        step = walk.step(torch.zeros(N, J))
        ended += int(step.truncated.sum())
        for obs in (step.obs, step.final_obs):
            assert torch.equal(obs["detector"][:, :48], obs["policy"])
    assert ended == 1


def test_noise_is_bounded_and_never_in_a_group_without(walk: Env) -> None:
    widths = torch.tensor([0.1] * 6 + [0.03] * 3 + [0] * 3 + [0.01] * 12 + [0.1] * 12 + [0] * 12)
    worst = torch.zeros(48)
    obs = walk.reset(0)
    for _ in range(30):
        true = obs["critic"][:, :48]
        worst = torch.maximum(worst, (obs["policy"] - true).abs().amax(0))
        torch.testing.assert_close(true[:, 12:24], walk.state.joint_pos - walk.default_joint_pos)
        obs = walk.step(torch.zeros(N, J)).obs
    assert (worst <= widths + 1e-5).all()
    assert (worst >= 0.8 * widths).all()


def test_noise_of_each_number() -> None:
    env = with_terms(time=ObsTerm(clock, noise=(0.5, 0.0)))
    off = torch.stack([obs["policy"][:, 0] - t for t, obs in enumerate(run(env, 30))])
    assert 0.4 < off.abs().max() <= 0.5 and off.min() < -0.4 and off.max() > 0.4
    assert run(env, 3)[-1]["policy"][:, 1].tolist() == [0, 1, 2, 3]
    with pytest.raises(KoboshiError, match="observation 'time' has 2 numbers, but 3 noise widths"):
        with_terms(time=ObsTerm(clock, noise=(0.5, 0.0, 0.0)))


@pytest.mark.parametrize("delay", [1, 3])
def test_fixed_delay_is_exact(delay: int) -> None:
    env = with_terms(time=ObsTerm(clock, delay=(delay, delay)), now=ObsTerm(clock))
    for t, obs in enumerate(run(env, 8)):
        assert obs["policy"][:, 0].tolist() == [max(t - delay, 0)] * N
        assert obs["policy"][:, 1].tolist() == list(range(N))
        assert obs["policy"][:, 2].tolist() == [t] * N
        assert torch.equal(obs["more"][:, :4], obs["policy"])


def test_random_delays_hold_for_an_episode() -> None:
    env = with_terms(episode_length_s=0.2, time=ObsTerm(clock, delay=(1, 3)))
    seen, lags = run(env, 200), set()
    for episode in range(20):
        ages = torch.stack([t - seen[episode * 10 + t]["policy"][:, 0] for t in range(10)])
        assert torch.equal(ages[:3].amax(0), ages[:3].amax(0).clamp(max=2)), "nothing from before the reset"
        assert (ages[3:] == ages[3]).all(), "one delay an episode"
        lags |= set(ages[3].int().tolist())
    assert lags == {1, 2, 3}


def test_history_is_oldest_first_and_refilled_at_a_reset() -> None:
    env = with_terms(episode_length_s=0.1, time=ObsTerm(clock, history=3, delay=(1, 1)))
    assert env.obs_spec["policy"].shape == (6,)
    assert env.layouts["policy"][0].history == 3
    for t, obs in enumerate(run(env, 12)):
        in_episode = t % 5
        times = [max(in_episode - lag - 1, 0) for lag in (2, 1, 0)]
        assert obs["policy"][0, 0::2].tolist() == times
        assert obs["policy"][3, 1::2].tolist() == [3, 3, 3]


def test_only_rows_that_end_are_refilled() -> None:
    env = with_terms(time=ObsTerm(clock, history=2))
    env.reset(0)
    for _ in range(3):
        env.step(torch.zeros(N, J))
    env.episode_step[2] = env.cfg.max_episode_length - 1
    step = env.step(torch.zeros(N, J))
    last = float(env.cfg.max_episode_length)
    assert step.obs["policy"][:, 0::2].tolist() == [[3, 4], [3, 4], [0, 0], [3, 4]]
    assert step.final_obs["policy"][2, 0::2].tolist() == [3, last]
    assert env.step(torch.zeros(N, J)).obs["policy"][:, 0::2].tolist() == [[4, 5], [4, 5], [0, 1], [4, 5]]


def test_scale_then_clip() -> None:
    env = with_terms(time=ObsTerm(clock, scale=2.0, clip=5.0))
    assert [obs["policy"][0, 0].item() for obs in run(env, 4)] == [0, 2, 4, 5, 5]
    assert run(env, 0)[0]["policy"][:, 1].tolist() == [0, 2, 4, 5]


def eyes() -> Env:
    terms = {"left": ObsTerm(picture), "right": ObsTerm(picture, {"shade": 100}), "time": ObsTerm(clock, history=2)}
    return grouped(
        0.1,
        policy=ObsGroup({"time": ObsTerm(clock)}),
        eyes=ObsGroup(terms, concatenate=False),
        camera=ObsGroup({"image": ObsTerm(picture)}),
    )


def test_images_and_terms_kept_apart() -> None:
    env = eyes()
    image = ObsSpec((3, 4, 4), torch.uint8)
    assert env.obs_spec == {
        "policy": ObsSpec((2,), terms=(Place("time", 0, 2),)),
        "eyes.left": image,
        "eyes.right": image,
        "eyes.time": ObsSpec((4,), terms=(Place("time", 0, 4),)),
        "camera": image,
    }
    assert image.width == 48
    assert set(env.layouts) == {"policy", "eyes.time"}
    for t, obs in enumerate(run(env, 8)):
        k = t % 5
        assert {name: (value.shape[1:], value.dtype) for name, value in obs.items()} == {
            name: spec[:2] for name, spec in env.obs_spec.items()
        }
        assert obs["eyes.left"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
        assert obs["eyes.left"][1:, 1:].unique().tolist() == [k]
        assert torch.equal(obs["camera"], obs["eyes.left"])
        assert obs["eyes.right"][1, 2].unique().tolist() == [100 + k]
        assert obs["eyes.time"][0].tolist() == [max(k - 1, 0), 0, k, 0]


def test_images_of_rows_that_go_on_are_left_alone() -> None:
    env = eyes()
    env.reset(0)
    env.episode_step[:] = torch.tensor([0, 4, 1, 2])
    step = env.step(torch.zeros(N, J))
    assert step.truncated.tolist() == [False, True, False, False]
    assert step.final_obs["eyes.left"][:, 1, 1, 1].tolist() == [1, 5, 2, 3]
    assert step.obs["eyes.left"][:, 1, 1, 1].tolist() == [1, 0, 2, 3]
    assert step.obs["eyes.left"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"noise": 0.1}, "noise"),
        ({"delay": (1, 1)}, "delay"),
        ({"scale": 2.0}, "scale"),
        ({"clip": 1.0}, "clip"),
        ({"history": 2}, "history"),
    ],
)
def test_an_image_is_given_as_it_is(change: dict[str, Any], named: str) -> None:
    message = rf"observation 'a' is torch.uint8 of shape \(3, 4, 4\): it has no {named}"
    with pytest.raises(KoboshiError, match=message):
        grouped(policy=ObsGroup({"a": ObsTerm(picture, **change)}))


def short(env: Env) -> Tensor:
    return torch.zeros(3)


@mirrored("same")
def bad_later(env: Env) -> Tensor:
    return torch.where(env.episode_step == 2, float("nan"), 0.0)[:, None]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"policy": ObsGroup({"time": ObsTerm(short)})}, r"observation 'time' has shape \(3,\), not \(4, …\)"),
        ({"policy": ObsGroup({"a": ObsTerm(clock)}, base="polcy")}, "no earlier observation group 'polcy'"),
        ({"policy": ObsGroup({"a": None})}, "group 'policy' holds no term of its own"),
        ({"policy": ObsGroup({})}, "group 'policy' holds no term of its own"),
        (
            {"policy": ObsGroup({"a": ObsTerm(clock), "b": ObsTerm(picture)})},
            "observation 'policy.b' is no vector; set concatenate=false for 'policy'",
        ),
        (
            {"policy": ObsGroup({"a": ObsTerm(picture)}), "more": ObsGroup({"b": ObsTerm(clock)}, base="policy")},
            "observation group 'policy' is no vector, and 'more' cannot begin with it",
        ),
        (
            {"policy": ObsGroup({"a": ObsTerm(clock)}), "more": ObsGroup({"b": ObsTerm(clock)}, "policy", True, False)},
            "an observation group that is not concatenated has no base",
        ),
    ],
)
def test_errors_name_the_term(groups: dict[str, ObsGroup], message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        grouped(**groups)


def test_a_number_that_is_not_finite_is_named() -> None:
    env = with_terms(fine=ObsTerm(clock), wrong=ObsTerm(bad_later))
    env.reset(0)
    env.step(torch.zeros(N, J))
    with pytest.raises(KoboshiError, match="observation 'policy.wrong' is not finite"):
        env.step(torch.zeros(N, J))


def test_a_reward_that_is_not_finite_is_named() -> None:
    terms = {"fine": RewardTerm(rewards.alive, 1.0), "bad": RewardTerm(bad_later, 1.0)}
    env = Env(worlds.go2(num_envs=N, rewards=terms))
    env.reset(0)
    env.step(torch.zeros(N, J))
    with pytest.raises(KoboshiError, match="reward 'bad' is not finite"):
        env.step(torch.zeros(N, J))
    with pytest.raises(KoboshiError, match=r"reward 'short' has shape \(1,\), not \(4,\)"):
        env.rewards._value("short", RewardTerm(lambda env: torch.zeros(1), 1.0))


def test_what_is_privileged_is_not_for_the_policy(walk: Env) -> None:
    assert "joint_torque" not in [e.name for e in walk.layouts["policy"]]
    assert observations.joint_torque(walk).shape == (N, J)
    walk.step(torch.full((N, J), 10.0))
    effort = observations.joint_effort(walk)
    torch.testing.assert_close(effort * walk.effort_limit, observations.joint_torque(walk))
    assert effort.abs().max() <= 1.0 and effort.abs().max() > 0.99


def test_one_reset_leaves_the_others_delays_alone() -> None:
    env = Env(worlds.go2(num_envs=16, observations={"policy": ObsGroup({"time": ObsTerm(clock, delay=(0, 7))})}))
    env.reset(0)
    for _ in range(10):
        obs = env.step(worlds.zeros(env)).obs
    late = 10 - obs["policy"][:, 0]
    for row in range(6):
        env.episode_step[row] = env.cfg.max_episode_length - 1
        env.step(worlds.zeros(env))
    now = 16 - env.step(worlds.zeros(env)).obs["policy"][:, 0] + 1
    assert late.unique().numel() > 3
    assert torch.equal(now[6:], late[6:])


def remembering(newest_first: bool, length: int = 3) -> Env:
    terms = {"joint_vel": ObsTerm(observations.joint_vel), "gravity": ObsTerm(observations.projected_gravity)}
    now = ObsGroup(dict(terms), noise=False)
    past = ObsGroup(dict(terms), noise=False, history_length=length, newest_first=newest_first)
    return Env(worlds.go2(observations={"now": now, "past": past}, episode_length_s=0.1, num_envs=3))


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_groups_history_is_its_last_vectors(newest_first: bool) -> None:
    """Through a time-out: the true last observation has the old episode's history, the first one only itself."""
    env = remembering(newest_first)
    obs, order = env.reset(0), slice(None, None, -1 if newest_first else 1)
    seen = [obs["now"]] * 3
    names = ["joint_vel", "gravity"]
    ages = [names, [f"{n}-1" for n in names], [f"{n}-2" for n in names]][:: 1 if newest_first else -1]
    assert [entry.name for entry in env.layouts["past"]] == sum(ages, [])
    assert [entry.start for entry in env.layouts["past"]] == [0, 12, 15, 27, 30, 42]
    for t, step in enumerate(worlds.random_steps(env, 7)):
        last = [*seen, step.final_obs["now"]][-3:]
        torch.testing.assert_close(step.final_obs["past"], torch.cat(last[order], 1), atol=0, rtol=0)
        seen = [step.obs["now"]] * 3 if step.truncated.all() else last
        assert step.truncated.all() == (t == 4)
        torch.testing.assert_close(step.obs["past"], torch.cat(seen[order], 1), atol=0, rtol=0)


def test_a_groups_history_is_restored_and_mirrors_vector_by_vector() -> None:
    env, other = remembering(True), remembering(True)
    env.reset(0), other.reset(1)
    worlds.random_steps(env, 3)
    other.load_state_dict(env.state_dict())
    one, two = (worlds.random_steps(e, 1)[0].obs["past"] for e in (env, other))
    torch.testing.assert_close(one, two, atol=0, rtol=0)
    (ids, signs), (now_ids, now_signs) = (env.observations.mirror(group) for group in ("past", "now"))
    image = (one[:, ids] * signs).unflatten(1, (3, 15))
    torch.testing.assert_close(image, one.unflatten(1, (3, 15))[..., now_ids] * now_signs)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (ObsGroup({}, history_length=0), "history_length must be at least 1"),
        (ObsGroup({}, base="policy", history_length=2), "a history has no base and is concatenated"),
        (ObsGroup({}, concatenate=False, history_length=2), "a history has no base and is concatenated"),
        (ObsGroup({}, newest_first=True), "newest_first has no effect without a history_length"),
    ],
)
def test_histories_that_make_no_sense_are_refused(group: ObsGroup, message: str) -> None:
    with pytest.raises(KoboshiError, match=message):
        group.validate()


def test_a_group_with_a_history_is_no_base() -> None:
    terms = {"gravity": ObsTerm(observations.projected_gravity)}
    groups = {"past": ObsGroup(dict(terms), history_length=2), "more": ObsGroup(dict(terms), base="past")}
    with pytest.raises(KoboshiError, match="'past' has a history, and 'more' cannot begin with it"):
        Env(worlds.go2(observations=groups))
