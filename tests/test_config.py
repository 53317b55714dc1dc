from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koboshi.config import diff, from_dict, load_yaml, override, save_yaml, to_dict
from koboshi.errors import KoboshiError


def track(scale: float) -> float:
    return scale


def fall(height: float) -> bool:
    return height < 0.5


@dataclass(frozen=True)
class Term:
    func: Callable[..., Any]
    weight: float = 1.0
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Noise:
    std: float = 0.1
    kind: Literal["normal", "uniform"] = "normal"


@dataclass
class Env:
    num_envs: int = 1024
    dt: float = 0.005
    clip: float | None = None
    noise: Noise | None = None
    range: tuple[float, float] = (0.0, 1.0)
    gains: dict[str, float] = field(default_factory=lambda: {"knee": 200.0})
    rewards: dict[str, Term | None] = field(
        default_factory=lambda: {
            "track": Term(track, 1.0, {"std": 0.5, "joints": ("left_knee",), "range": (0.0, 1.0)}),
            "fall": Term(fall, -200.0),
        }
    )
    scales: tuple[Noise, ...] = (Noise(0.1), Noise(0.2))

    def validate(self) -> None:
        if self.num_envs <= 0:
            raise KoboshiError(f"env.num_envs: must be positive, got {self.num_envs}")


@dataclass(frozen=True)
class Root:
    env: Env = field(default_factory=Env)
    out: Path = Path("runs")
    name: str = "h1"
    video: bool = False
    hidden: tuple[int, ...] = (64, 64)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(self.hidden))


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("env.num_envs=2048", "env.num_envs", 2048),
        ("env.dt=1e-3", "env.dt", 0.001),
        ("env.dt=1", "env.dt", 1.0),
        ("env.clip=2", "env.clip", 2.0),
        ("env.range=[-1, 1e0]", "env.range", [-1.0, 1.0]),
        ("env.noise.kind=uniform", "env.noise", {"std": 0.1, "kind": "uniform"}),
        ("env.noise={std: 0.5}", "env.noise", {"std": 0.5, "kind": "normal"}),
        ("env.gains.knee=150", "env.gains", {"knee": 150.0}),
        ("env.gains={hip: 1, knee: 2}", "env.gains", {"hip": 1.0, "knee": 2.0}),
        ("env.rewards.track.weight=.5", "env.rewards.track.weight", 0.5),
        ("env.rewards.track.params.std=0.25", "env.rewards.track.params.std", 0.25),
        ("env.rewards.track.params.joints=[torso, a]", "env.rewards.track.params.joints", ["torso", "a"]),
        ("env.rewards.track.params.range=[0, 2]", "env.rewards.track.params.range", [0.0, 2.0]),
        ("env.rewards.track={weight: 3, params: {std: 1}}", "env.rewards.track.weight", 3.0),
        ("env.scales=[{std: 1}]", "env.scales", [{"std": 1.0, "kind": "normal"}]),
        ("out=/tmp/there", "out", "/tmp/there"),
        ("name=2026-01-01", "name", "2026-01-01"),
        ("name=1e-3", "name", "1e-3"),
        ("name=a=b", "name", "a=b"),
        ("video=true", "video", True),
        ("hidden=[8]", "hidden", [8]),
    ],
)
def test_override_sets_one_key(assignment: str, key: str, value: object) -> None:
    found = to_dict(override(Root(), [assignment]))
    for name in key.split("."):
        found = found[name]
    assert found == value and type(found) is type(value)


def test_override_keeps_types_and_leaves_the_input_alone() -> None:
    base, before = Root(), to_dict(Root())
    changed = override(base, ["env.rewards.track.params.joints=[a]", "env.range=[1, 2]", "out=x", "hidden=[8, 4]"])
    assert changed.env.rewards["track"] is not None
    assert changed.env.rewards["track"].params["joints"] == ("a",)
    assert changed.env.range == (1.0, 2.0) and isinstance(changed.env.range[0], float)
    assert changed.out == Path("x")
    assert changed.total == 12
    assert changed.env.scales is base.env.scales
    assert to_dict(base) == before


def test_null_removes_a_term_and_clears_an_optional_field() -> None:
    changed = override(
        Root(env=Env(clip=1.0, noise=Noise())), ["env.rewards.fall=null", "env.clip=null", "env.noise=null"]
    )
    assert list(changed.env.rewards) == ["track"]
    assert changed.env.clip is None and changed.env.noise is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("env.num_envs=abc", "env.num_envs: expected int, got 'abc'"),
        ("env.num_envs=1.5", "env.num_envs: expected int, got 1.5"),
        ("env.num_envs=true", "env.num_envs: expected int, got True"),
        ("env.num_envs=null", "env.num_envs: expected int, got null"),
        ("env.num_envs=0", "env.num_envs: must be positive, got 0"),
        ("env.clip=x", "env.clip: expected float or null, got 'x'"),
        ("env.range=[1]", "env.range: expected tuple[float, float], got [1]"),
        ("env.noise=3", "env.noise: expected Noise or null, got 3"),
        ("env.noise.kind=pink", "env.noise.kind: expected 'normal' or 'uniform', got 'pink'"),
        ("env.rewards.track=3", "env.rewards.track: expected a map of func, weight, params, got 3"),
        ("env.rewards.track.params.std=wide", "env.rewards.track.params.std: expected float, got 'wide'"),
        ("env.rewards.track.params.std=null", "env.rewards.track.params.std: expected float, got null"),
        (
            "env.rewards.track.params.joints=[1]",
            "env.rewards.track.params.joints: expected tuple[str, ...], got [1]",
        ),
        ("env.num_env=4", "no key 'env.num_env'; did you mean 'env.num_envs'? keys: num_envs, dt, "),
        ("num_envs=4", "no key 'num_envs'; did you mean 'env.num_envs'? keys: env, out, name, video, hidden"),
        (
            "env.rewards.fal=null",
            "no key 'env.rewards.fal'; did you mean 'env.rewards.fall'? keys: track, fall",
        ),
        ("env.rewards.track.params.stdd=1", "did you mean 'env.rewards.track.params.std'?"),
        ("env.gains.ankle=1", "no key 'env.gains.ankle'; keys: knee"),
        ("env.num_envs.x=1", "no key 'env.num_envs.x'; keys: (none)"),
        ("env.clip.x=1", "env.clip is null and has no keys"),
        ("total=3", "no key 'total'"),
        ("video", "'video' is not an override; write key=value, as in env.num_envs=2048"),
    ],
)
def test_override_refuses(assignment: str, message: str) -> None:
    with pytest.raises(KoboshiError) as error:
        override(Root(), [assignment])
    assert message in str(error.value)


def test_functions_cannot_be_overridden() -> None:
    with pytest.raises(KoboshiError, match=r"env.rewards.track.func is a function \(.*test_config.track\)"):
        override(Root(), ["env.rewards.track.func=fall"])


def test_unbalanced_yaml_is_refused_by_type() -> None:
    with pytest.raises(KoboshiError, match=r"hidden: expected tuple\[int, ...\], got '\[8'"):
        override(Root(), ["hidden=[8"])


def test_to_dict_is_plain() -> None:
    data = to_dict(Root())
    assert data["out"] == "runs" and data["hidden"] == [64, 64] and "total" not in data
    assert data["env"]["rewards"]["track"]["func"] == f"{__name__}.track"


def test_diff_names_what_changed() -> None:
    changed = override(Root(), ["env.num_envs=2048", "env.rewards.fall=null", "env.noise={}"])
    assert diff(Root(), changed) == [
        "env.num_envs: 1024 -> 2048",
        "env.noise: null -> {'std': 0.1, 'kind': 'normal'}",
        "env.rewards.fall: removed",
    ]
    assert diff(changed, changed) == []


floats = st.floats(allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(
    num_envs=st.integers(1, 2**40),
    dt=floats,
    clip=st.none() | floats,
    noise=st.none() | st.builds(Noise, floats, st.sampled_from(["normal", "uniform"])),
    joints=st.lists(st.text(), min_size=1),
    hidden=st.lists(st.integers()).map(tuple),
    gains=st.dictionaries(st.text(), floats),
    name=st.text(),
    keep=st.booleans(),
)
def test_saved_trees_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    num_envs: int,
    dt: float,
    clip: float | None,
    noise: Noise | None,
    joints: list[str],
    hidden: tuple[int, ...],
    gains: dict[str, float],
    name: str,
    keep: bool,
) -> None:
    rewards: dict[str, Term | None] = {
        "track": Term(track, dt, {"std": 2.0, "joints": tuple(joints), "range": (dt, 3.0)})
    }
    if keep:
        rewards["fall"] = Term(fall, -200.0)
    env = Env(num_envs, dt, clip, noise, (dt, dt), gains, rewards, (Noise(dt),))
    cfg = Root(env, Path("some/where"), name, True, hidden)
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    save_yaml(path, cfg)
    assert load_yaml(path, Root()) == cfg


@pytest.mark.parametrize("name", ["1e-3", "null", "true", "2026-01-01", "\x85", "[1", "12"])
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, name: str) -> None:
    save_yaml(tmp_path / "config.yaml", replace(Root(), name=name))
    assert load_yaml(tmp_path / "config.yaml", Root()).name == name


@settings(max_examples=25, deadline=None)
@given(st.floats() | st.integers() | st.text())
def test_a_value_is_taken_whole_or_refused(value: float | int | str) -> None:
    try:
        dt = override(Root(), [f"env.dt={value}"]).env.dt
    except KoboshiError:
        assert isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value))
    else:
        assert isinstance(dt, float)
        assert isinstance(value, str) or dt == float(value)


def test_from_dict_names_what_the_base_lacks() -> None:
    data = to_dict(Root())
    data["env"]["rewards"]["jump"] = {"func": "x.jump", "weight": 1.0, "params": {}}
    with pytest.raises(KoboshiError, match="no key 'env.rewards.jump'; keys: track, fall"):
        from_dict(Root(), data)
    data = to_dict(Root())
    data["env"]["num_envs"] = "many"
    with pytest.raises(KoboshiError, match="env.num_envs: expected int, got 'many'"):
        from_dict(Root(), data)


def test_from_dict_keeps_functions_and_missing_fields() -> None:
    base = replace(Root(), name="mine")
    data = to_dict(Root())
    data["env"]["rewards"]["track"]["func"] = "elsewhere.renamed"
    del data["name"]
    cfg = from_dict(base, data)
    assert cfg.env.rewards["track"] is not None and cfg.env.rewards["track"].func is track
    assert cfg.name == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1", "holds no configuration"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_load_yaml_refuses(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(KoboshiError, match=message):
        load_yaml(tmp_path / "config.yaml", Root())
    with pytest.raises(KoboshiError, match="no configuration"):
        load_yaml(tmp_path / "none.yaml", Root())


# Fields that may be one of several dataclasses


@dataclass(frozen=True)
class Mlp:
    hidden: tuple[int, ...] = (64,)
    groups: tuple[str, ...] = ("policy",)


@dataclass(frozen=True)
class Gru:
    size: int = 32
    groups: tuple[str, ...] = ("policy",)

    def validate(self) -> None:
        if self.size < 1:
            raise KoboshiError(f"size must be at least 1, not {self.size}")


@dataclass(frozen=True)
class Teacher:
    path: str
    noise: Noise
    decay: float = 0.5


@dataclass(frozen=True)
class Agent:
    actor: Mlp | Gru = Mlp()
    teacher: Teacher | Noise | None = None
    parts: dict[str, Mlp | Gru | None] = field(default_factory=lambda: {"eyes": Gru(8)})
    only: Teacher | None = None


def test_one_of_several_types_is_saved_by_its_name_and_comes_back(tmp_path: Path) -> None:
    cfg = Agent(Gru(7), Teacher("a.pt", Noise(0.3), 0.9), {"eyes": Mlp((3,))}, Teacher("b.pt", Noise()))
    data = to_dict(cfg)
    assert data["actor"] == {"type": "Gru", "size": 7, "groups": ["policy"]}
    assert data["teacher"]["type"] == "Teacher" and data["parts"]["eyes"]["type"] == "Mlp"
    assert "type" not in data["only"]  # what has one type only needs no name
    save_yaml(tmp_path / "config.yaml", cfg)
    assert load_yaml(tmp_path / "config.yaml", Agent()) == cfg
    assert load_yaml(tmp_path / "config.yaml", cfg) == cfg
    save_yaml(tmp_path / "config.yaml", Agent())
    assert load_yaml(tmp_path / "config.yaml", cfg) == Agent()


def test_an_override_chooses_a_type_and_starts_from_its_defaults() -> None:
    base = Agent(Mlp((5,), groups=("mine",)))
    assert override(base, ["actor.type=Gru"]).actor == Gru()
    assert override(base, ["actor.type=Gru", "actor.size=4"]).actor == Gru(4)
    assert override(base, ["actor={size: 4, type: Gru}"]).actor == Gru(4)
    assert override(base, ["actor.type=Mlp"]) == base  # it is one already
    assert override(base, ["parts.eyes={type: Mlp, hidden: [1]}"]).parts == {"eyes": Mlp((1,))}
    assert override(base, ["teacher={type: Teacher, path: x, noise: {std: 2}}"]).teacher == Teacher("x", Noise(2.0))
    assert override(base, ["parts.eyes=null", "teacher.type=Noise", "teacher.std=1"]) == replace(
        base, parts={}, teacher=Noise(1.0)
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("actor.type=Lstm", "actor.type: expected 'Mlp' or 'Gru', got 'Lstm'"),
        ("actor={type: 3}", "actor.type: expected 'Mlp' or 'Gru', got 3"),
        ("actor.type=null", "actor.type: expected 'Mlp' or 'Gru', got null"),
        ("actor.size=4", "no key 'actor.size'"),
        ("actor={type: Gru, hidden: [1]}", "no key 'actor.hidden'"),
        ("actor={type: Gru, size: 0}", "size must be at least 1, not 0"),
        ("teacher.type=Teacher", "teacher.path is missing; Teacher has no default for it"),
        ("teacher={type: Teacher, path: x, noise: 3}", "teacher.noise: expected Noise, got 3"),
        ("teacher.std=1", "teacher is null; say which type it is to be: Teacher, Noise"),
        ("only.type=Teacher", "only.path is missing; Teacher has no default for it"),
    ],
)
def test_a_type_that_does_not_fit_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(KoboshiError) as error:
        override(Agent(), [assignment])
    assert message in str(error.value)


def test_a_saved_type_that_nobody_knows_is_refused() -> None:
    data = to_dict(Agent()) | {"actor": {"type": "Lstm", "size": 3}}
    with pytest.raises(KoboshiError, match="actor.type: expected 'Mlp' or 'Gru', got 'Lstm'"):
        from_dict(Agent(), data)


def test_diff_names_another_type() -> None:
    assert diff(Agent(), Agent(Gru(3))) == [
        "actor.type: 'Mlp' -> 'Gru'", "actor.hidden: removed", "actor.size: added",
    ]  # fmt: skip
