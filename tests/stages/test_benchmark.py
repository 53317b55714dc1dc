"""`koboshi benchmark faults` with the shipped H1 and few, short episodes: parts, resuming, joining, what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from koboshi import config
from koboshi.errors import KoboshiError
from koboshi.faults import Scenarios
from koboshi.stages import benchmark as stage
from koboshi.stages.benchmark import Benchmark
from koboshi.stages.parts import Wanted, find_parts, joined, load_part
from koboshi.tasks import make_task

SHIPPED = str(files("koboshi") / "assets" / "h1_walk" / "controller.safetensors")
SIZE = {"episodes": 4, "seconds": 1.0, "hours": 0.0005}
WORDS = [word for name, value in SIZE.items() for word in (f"--{name}", str(value))]
PARTS = [Wanted(1, "B0", "nominal"), Wanted(1, "B4", "nominal"), Wanted(1, "B4", "soft_gains")]


@pytest.fixture(autouse=True)
def few_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "TIMED_STEPS", 3)
    monkeypatch.setattr("koboshi.bench.statistics.DRAWS", 20)


def benchmark(out: Path, controllers: tuple[str, ...], worlds: tuple[str, ...], **changes: Any) -> Benchmark:
    plan = Benchmark(
        make_task("h1-walk"), SHIPPED, out, out / "runs", (1,), controllers, worlds,
        SIZE["episodes"], SIZE["seconds"], SIZE["hours"],
    )  # fmt: skip
    return replace(plan, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with PARTS; nobody may write to it."""
    out = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "TIMED_STEPS", 3)
        stage.make(benchmark(out, ("B0", "B4"), ("nominal",)))
        stage.make(benchmark(out, ("B4",), ("soft_gains",)))
    return out


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def without_times(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in ("made", "cost_us", "step_us")}


def test_parts_hold_what_was_made_from_what(made: Path) -> None:
    parts = joined([made])
    assert list(parts) == sorted(PARTS)
    healthy, switch, elsewhere = (parts[wanted] for wanted in PARTS)
    assert {len(column) for part in (healthy, switch) for column in part["columns"].values()} == {SIZE["episodes"]}
    assert {len(column) for column in elsewhere["columns"].values()} == {1}
    assert healthy["handover"] == switch["handover"] != elsewhere["handover"], "the same robots, but in one's own world"
    assert "delay_ms" in switch["columns"] and "delay_ms" not in healthy["columns"]
    assert {way["false_alarms"] for way in healthy["alarms"].values()} == {0}, "it never alarms, but it may fall"
    assert switch["alarms"]["walking"]["healthy_hours"] == pytest.approx(0.8 * SIZE["hours"], rel=0.05)
    identity = switch["identity"]
    assert identity["files"] == [identity["walker"]] and identity["part"] == PARTS[1]._asdict()
    assert identity["settings"]["robot"] == "unitree_h1" and "rewards" not in identity["settings"]
    assert switch["about"]["parameters"] > healthy["about"]["parameters"] > 69 * 128
    # Where nothing breaks and no alarm is raised, the switch is the healthy policy to the last bit.
    first = [part["columns"]["vx_rmse"][0] for part in (healthy, switch)]
    assert first[0] == first[1] is not None


def test_what_is_there_is_not_made_again(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_made", lambda *_: pytest.fail("made again"))
    found = stage.make(benchmark(copied, ("B0", "B4"), ("nominal",)))
    assert found == [part.path(copied) for part in PARTS[:2]]


def test_a_part_that_is_not_whole_is_named_and_made_again(
    made: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = PARTS[0].path(copied)
    path.write_bytes(path.read_bytes()[:-100])
    stage.make(benchmark(copied, ("B0",), ("nominal",)))
    assert f"{path} is not valid JSON (truncated?)" in capsys.readouterr().out
    assert without_times(load_part(path)) == without_times(load_part(PARTS[0].path(made)))


def test_parts_from_elsewhere_are_refused_and_what_differs_is_named(copied: Path) -> None:
    task = config.override(make_task("h1-walk"), ["env.actions.delay=[0,1]"])
    with pytest.raises(KoboshiError, match=r"json was made otherwise \(settings.actions.delay: .*--out"):
        stage.make(benchmark(copied, ("B0",), ("nominal",), task=task))
    with pytest.raises(KoboshiError, match="hours: 0.0005 -> 0.1"):
        stage.make(benchmark(copied, ("B0",), ("nominal",), hours=0.1))
    path = PARTS[2].path(copied)
    part = load_part(path)
    for name, change in (("code", "0"), ("walker", "0"), ("files", ["0"]), ("suite", {"hash": "0"})):
        path.write_text(json.dumps(part | {"identity": part["identity"] | {name: change}}))
        with pytest.raises(KoboshiError, match=f"soft_gains.json do not belong to one benchmark: .*{name}"):
            joined([copied])
    path.write_text(json.dumps(part | {"identity": part["identity"] | {"format": 0}}))
    with pytest.raises(KoboshiError, match="has format 0, not 2"):
        joined([copied])
    path.write_text(json.dumps({}))
    with pytest.raises(KoboshiError, match="is no part of a benchmark"):
        joined([copied])


def test_one_controller_is_not_two_seeds(copied: Path) -> None:
    part = load_part(PARTS[0].path(copied))
    twice = PARTS[0]._replace(seed=2)
    twice.path(copied).parent.mkdir(parents=True)
    identity = part["identity"] | {"part": twice._asdict()}
    twice.path(copied).write_text(json.dumps(part | {"identity": identity}))
    with pytest.raises(KoboshiError, match="are of one controller, which is not two training seeds"):
        joined([copied])
    twice.path(copied).write_text(json.dumps(part | {"identity": identity | {"walker": "0", "files": ["0"]}}))
    assert len(joined([copied])) == len(PARTS) + 1


def test_what_could_not_be_joined_is_refused_before_anything_is_walked(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "code_digest", lambda: "another")
    monkeypatch.setattr(stage, "_made", lambda *_: pytest.fail("walked"))
    with pytest.raises(KoboshiError, match="was made otherwise .code: .* -> 'another'"):
        stage.make(benchmark(copied, ("B3",), ("nominal",)))


def test_a_file_left_half_written_is_no_part(copied: Path) -> None:
    path = PARTS[0].path(copied)
    (path.parent / f".{path.stem}.99.json").write_text("{")
    assert list(find_parts([copied]).values()) == [part.path(copied) for part in sorted(PARTS)]


def test_two_folders_joined_are_one(made: Path, tmp_path: Path, koboshi: Callable[..., Any]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, parts in ((one, PARTS[:1]), (other, PARTS[1:])):
        for part in parts:
            part.path(folder).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(part.path(made), part.path(folder))
    stage.report(benchmark(one, (), ()), [made])
    command = ("benchmark", "faults", "--pipeline", SHIPPED, "--out", other, *WORDS, "--join", other, "--join", one)
    result = koboshi(*command)
    assert result.code == 0, result
    assert [Path(line).name for line in result.out.splitlines()[-2:]] == ["report.html", "table.md"]
    for name in ("figures.json", "scenarios.json", "table.md"):
        assert (one / name).read_text() == (other / name).read_text()
    walked = Scenarios.load(one / "scenarios.json")
    assert walked.hash == benchmark(one, (), ()).suite.scenarios.hash and len(walked.episodes) == SIZE["episodes"]
    page = (other / "report.html").read_text()
    assert "one training seed (1): intervals are over episodes alone" in page and "soft_gains" in page
    assert "not measured" in page and "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    found = json.loads((one / "figures.json").read_text())
    assert found["same_states"] and found["differences"]["B0"]["k=1"]["seeds"] == 1
    assert found["survival"]["B4"]["nominal"]["k=0, walking"]["value"] == 1.0


def test_a_killed_benchmark_goes_on_to_the_same_figures(
    made: Path, tmp_path: Path, killed: Callable[..., None], koboshi: Callable[..., Any]
) -> None:
    command = (
        "benchmark", "faults", "--pipeline", SHIPPED, "--seed", 1, "--out", tmp_path, "--controller", "B0",
        "--controller", "B4", "--world", "nominal", *WORDS,
    )  # fmt: skip
    killed("*/nominal.json", 1, *command)
    assert PARTS[0].path(tmp_path).exists() and not PARTS[1].path(tmp_path).exists()
    assert koboshi(*command).code == 0
    for part in PARTS[:2]:
        assert without_times(load_part(part.path(tmp_path))) == without_times(load_part(part.path(made)))


def test_what_cannot_work_is_one_line(tmp_path: Path, fails: Callable[..., str]) -> None:
    command = ("benchmark", "faults", "--pipeline", SHIPPED, "--seed", 1, "--out", tmp_path, *WORDS)
    assert "no controller 'B9'; controllers: B0, B1," in fails(*command, "--controller", "B9")
    assert "no world 'moon'; worlds: nominal" in fails(*command, "--world", "moon")
    assert "B1 of seed 1 needs" in (said := fails(*command, "--controller", "B1", "--root", tmp_path)), said
    joining = ("benchmark", "faults", "--out", tmp_path, "--join")
    assert "no part of a benchmark in" in fails(*joining, tmp_path)
    assert "no folder" in fails(*joining, tmp_path / "nowhere")
    assert "--join makes no part" in fails(*command, "--join", tmp_path)
    twice = ("benchmark", "faults", "--pipeline", SHIPPED, "--out", tmp_path)
    assert "names one training, not those of the seeds 1, 2, 3" in fails(*twice)
    assert "--hours is above 0, not 0.0" in fails(*command, "--hours", 0)
    assert "--episodes must be at least 1, not -3" in fails(*command[: -len(WORDS)], "--episodes", -3)
    missing = fails("benchmark", "faults", "--pipeline", "{task}/seed-{seed}", "--root", tmp_path, "--seed", 2)
    assert "no run 'h1-walk/seed-2'" in missing
