"""From parts to figures, targets and pages, with parts small enough to count by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from koboshi import robots
from koboshi.bench import benchmark_report, targets
from koboshi.bench.benchmark_figures import Results, figures
from koboshi.bench.suite import Suite
from koboshi.bench.targets import headline, points, share
from koboshi.bench.worlds import NOMINAL, WALKED
from koboshi.faults import Fault, Scenario, Scenarios

H1 = robots.find("unitree_h1")
KNEE, TORSO = H1.joint_id("left_knee"), H1.joint_id("torso")
WALK = (0.5, 0.0, 0.0)
EPISODES = (
    Scenario((), WALK, 3.0, 0.0),
    Scenario((Fault("left_knee"),), WALK, 3.0, 0.0),
    Scenario((Fault("torso", "locked", 0.5),), WALK, 3.0, 0.0),
    Scenario((Fault("left_knee"), Fault("torso")), WALK, 3.0, 0.0),
)
SUITE = Suite("tiny-v1", Scenarios("unitree_h1", 0, EPISODES), everywhere=2)
ABOUT = {"about": "someone", "steps": 10, "parameters": 5, "kinds": ["torque_loss"], "count": [1, 1]}
BANKS = ("B5joint", "B5pair", "B5limb", "B5one")
"""Of which one has the size of B4's own."""


def part(survived: list[bool | None], *, delays: Any = None, state: str = "a", vx: float = 0.1, **more: Any) -> Any:
    """A part of the first episodes of SUITE; with `delays` (ms, of every fault) one of a controller that detects."""
    n, faults = len(survived), [len(e.faults) for e in EPISODES[: len(survived)]]
    known = [0.1 if s else None for s in survived]
    rows: dict[str, Any] = {name: known for name in ("heading_error", "path_error", "vy_rmse", "yaw_rmse")}
    rows |= {"survived": survived, "recovered": survived, "vx_rmse": [vx] * n, "path_progress": [1.0] * n}
    rows |= {"peak": [0.5] * n, "felt": [[True] * k for k in faults], "load_ms": [[20.0] * k for k in faults]}
    if delays is not None:
        rows |= {"delay_ms": delays, "kinds": [[None] * k for k in faults], "false": [0] * n, "alive_s": [36.0] * n}
        rows["named_1"] = [[], [KNEE], [TORSO, KNEE], None][:n]
    return {
        "columns": rows, "about": ABOUT | {"detects": delays is not None}, "handover": [state], "cost_us": 1.0,
        "step_us": 2.0, "made": {"seconds": 1800.0, "commit": None}, **more,
    }  # fmt: skip


def alarms(false: int, hours: float) -> dict[str, Any]:
    return {
        way: {"false_alarms": false, "healthy_hours": hours / 2, "healthy_falls": 3} for way in ("walking", "standing")
    }


DELAYS = [[], [40.0], [None], [60.0, 20.0]]


@pytest.fixture(autouse=True)
def two_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "WALKED", ("nominal", "late"))


PARTS = {
    (1, "B0", "nominal"): part([True, False, True, False]),
    (2, "B0", "nominal"): part([True, False, False, None]),
    (1, "B3", "nominal"): part([True, True, True, True]),
    (2, "B3", "nominal"): part([True, True, True, None]),
    (1, "B4", "nominal"): part([True, True, True, True], delays=DELAYS, vx=0.11, alarms=alarms(1, 20.0)),
    (2, "B4", "nominal"): part([True, True, False, None], delays=DELAYS, alarms=alarms(0, 20.0), state="b"),
    (1, "B4", "late"): part([True, False], delays=DELAYS[:2], alarms=alarms(2, 5.0)),
}


@pytest.fixture
def found() -> dict[str, Any]:
    return figures(Results(PARTS, SUITE, H1), "B4", "B0", "B3") | {"suite": {"name": SUITE.name, "hash": SUITE.hash}}


def value(interval: dict[str, Any] | None) -> Any:
    return None if interval is None else pytest.approx(interval["value"])


def test_survival_is_over_all_seeds_and_void_episodes_do_not_count(found: dict[str, Any]) -> None:
    here = {name: found["survival"][name]["nominal"] for name in ("B0", "B3", "B4")}
    assert value(here["B0"]["k=1"]) == 1 / 4 and value(here["B4"]["k=1"]) == 3 / 4
    assert value(here["B0"]["k=1, worst joint"]) == 0 and value(here["B4"]["k=1, worst joint"]) == 1 / 2
    assert here["B4"]["k=2"]["episodes"] == 1 and here["B4"]["k=3"] is None and here["B4"]["k=1"]["seeds"] == 2
    assert value(found["survival"]["B4"]["late"]["k=1"]) == 0
    assert found["heat"]["B4"]["torso"]["locked"] == 1 / 2 and found["heat"]["B4"]["torso"]["braking"] is None


def test_differences_regret_and_tax_are_paired(found: dict[str, Any]) -> None:
    assert value(found["differences"]["B0"]["k=1"]) == (1 + 0 + 1 + 0) / 4
    assert value(found["regret"][NOMINAL]["k=1"]) == 1 / 4
    # Both walks survive in both seeds: √((0.11² + 0.1²) / (2 · 0.1²)) − 1.
    assert value(found["tax"][NOMINAL]["tracking"]) == ((0.0121 + 0.01) / 0.02) ** 0.5 - 1
    assert value(found["tax"][NOMINAL]["survival"]) == 0
    assert value(found["tracking"][NOMINAL]["B4"]["vx_rmse"]) == 0.11, (
        "one episode is survived by all, the torso's of seed 1"
    )


def test_who_has_fewer_seeds_is_compared_on_those_and_says_so(found: dict[str, Any]) -> None:
    """By hand: B1 survives one of two single faults in seed 1, where B4 survives both; in seed 2 there is no B1."""
    some = Results(PARTS | {(1, "B1", "nominal"): part([True, False, True, False])}, SUITE, H1)
    more = figures(some, "B4", "B0", "B3") | {"suite": found["suite"]}
    gap = more["differences"]["B1"]["k=1"]
    assert value(gap) == 1 / 2 and [value(each) for each in gap["of"]] == [1.0, 1 / 2]
    assert [value(each) for each in more["differences"]["B0"]["k=1"]["of"]] == [3 / 4, 1 / 4]
    line = next(x for x in headline(more, "B4", ("B1",), BANKS) if x.figure.startswith("better than B1"))
    assert line.reached is None and line.measured.startswith("+50.0 points [")
    assert more["by_seed"]["B4"] == {
        "1": {"k=1": 1.0, "k=2": 1.0, "k=3": None, "k=4": None},
        "2": {"k=1": 0.5, "k=2": None, "k=3": None, "k=4": None},
    }
    table = benchmark_report.markdown(more, [])
    assert "\n| B1, someone (seed 1 alone) |" in table and "\n| B0, someone |" in table
    # In seed 1 all but B0's and B1's robot with the broken knee stand; in seed 2 nobody is left whom all survive.
    assert more["tracking"][NOMINAL]["B4"]["vx_rmse"]["episodes"] == 1


def test_falls_of_the_well_are_held_against_those_without_a_switch(found: dict[str, Any]) -> None:
    """By hand: three falls walking and three standing in each of B4's two seeds of 20 h, as many in B0's 10 h."""
    alone = part([True, False, True, False], alarms=alarms(0, 10.0))
    more = figures(Results(PARTS | {(1, "B0", "nominal"): alone}, SUITE, H1), "B4", "B0", "B3")
    falls = more["tax"][NOMINAL]["falls"]
    assert value(falls["B4"]) == 12 / 40 and value(falls["B0"]) == 6 / 10
    assert found["tax"][NOMINAL]["falls"]["B0"] is None, "nobody counted"


def test_every_world_has_its_course_and_costs(found: dict[str, Any]) -> None:
    """By hand: of one joint, B4 recovers 2 and 1 of 2 in the nominal world, and falls with the knee in the late one."""
    assert value(found["course"]["B4"][NOMINAL]["recovery"]) == 3 / 4
    assert value(found["course"]["B4"]["late"]["recovery"]) == 0
    assert found["course"]["B4"]["late"]["heading_error"] is None, "nobody survived"
    assert "late" not in found["course"]["B0"]
    assert found["regret"]["late"]["k=1"] is None and found["tax"]["late"]["tracking"] is None
    assert value(found["severity"]["B4"]["late"]["1"]) == 0 and found["severity"]["B4"]["late"]["0.5"] is None
    assert found["tracking"]["late"]["B4"]["vx_rmse"] is None and "B0" not in found["tracking"]["late"]
    for table in (
        benchmark_report._surviving_in_worlds, benchmark_report._walking_in_worlds,
        benchmark_report._hearing_in_worlds, benchmark_report._smallest_in_worlds,
    ):  # fmt: skip
        _, heads, rows = table(found)
        assert [row[0] for row in rows] == [NOMINAL, "late"] and {len(row) for row in rows} == {len(heads)}
    narrow = benchmark_report._in_worlds(found)
    assert {len(row) for _, heads, rows in narrow for row in (heads, *rows)} <= set(range(2, 7))
    shown = [head for caption, heads, _ in narrow if caption == "Detection" for head in heads[1:]]
    assert shown == list(benchmark_report.HEARD)


def test_banks_of_all_sizes_are_a_table(found: dict[str, Any]) -> None:
    def line() -> Any:
        return next(x for x in headline(found, "B4", (), BANKS) if x.figure.startswith("banks"))

    assert line().reached is None and line().measured.startswith("B4 75.0 % [")
    found["survival"] |= dict.fromkeys(("B5joint", "B5pair", "B5limb"), found["survival"]["B3"])
    assert line().reached and line().measured.startswith("B5joint 100.0 % [100.0, 100.0] / B5pair 100.0 %")


def test_detection_counts_what_was_felt(found: dict[str, Any]) -> None:
    here = found["detection"]["B4"]["nominal"]
    assert list(found["detection"]) == ["B4"]
    assert value(here["delay dead, median"]) == 40 and value(here["recall"]) == 1 / 2
    assert value(here["exact k=1"]) == 1 / 2 and here["exact k=2"] is None
    assert here["kind macro-F1"] is None, "it never told kinds apart"
    assert here["false alarms"]["both"]["hours"] == 40 and value(here["false alarms"]["both"]) == 2 / 40
    assert here["false alarms"]["both"]["falls"] == 12 and here["false alarms"]["walking"]["falls"] == 6
    assert value(here["wrong alarms"]) == 0
    kinds = found["recall"]["B4"][NOMINAL]
    assert kinds["locked"] == {"0.25": None, "0.5": 0.0, "0.75": None, "1": None, "smallest": None}
    assert kinds["torque_loss"]["smallest"] == found["recall"]["B4"]["late"]["torque_loss"]["smallest"] == 1.0
    assert found["delays"]["B4"] == {"dead": [40.0, 40.0], "half-dead": []}


def test_what_differs_between_parts_is_told(found: dict[str, Any]) -> None:
    assert found["same_states"] is False and found["seeds"] == [1, 2] and found["hours_a_seed"] == 2.0
    unknown = found["held_out_kinds"]["B4"]
    assert "locked" in unknown[NOMINAL]["kinds"]
    assert value(unknown[NOMINAL]["survival"]) == 1 / 2 and unknown["late"]["survival"] is None


def test_targets_say_what_is_reached_and_what_nobody_measured(found: dict[str, Any]) -> None:
    lines = {line.figure.split(",")[0]: line for line in headline(found, "B4", ("B0", "B1"), BANKS)}
    assert lines["k = 1"].reached is False and lines["k = 1"].measured.startswith("75.0 % [")
    assert lines["k = 2 / k = 3: survival"].reached is None, "no episode of three joints"
    assert lines["false alarms an hour"].reached is True, "0.05 in 40 h, and 0.8 in the 5 h of the other world"
    assert lines["heading error at the end"].reached is True
    assert lines["better than B0 at k = 1"].measured.startswith("+50.0 points [")
    assert lines["better than B1 at k = 1"][2:] == ("–", None), "it has no part"
    assert lines["one seed of the benchmark"][2:] == ("2.00 h", None), "banks and B1 are missing"
    assert share(None) == points(None) == "–"


@pytest.mark.parametrize(("hours", "false", "reached"), [(29.0, 0, None), (30.0, 0, True), (1.0, 5, False)])
def test_few_hours_prove_no_low_rate_of_false_alarms_but_a_high_one(
    hours: float, false: int, reached: bool | None
) -> None:
    parts = {
        (1, "B4", "nominal"): part([True] * 4, delays=DELAYS, alarms=alarms(false, hours)),
        (1, "B4", "late"): part([True, True], delays=DELAYS[:2], alarms=alarms(0, 5.0)),
    }
    some = figures(Results(parts, SUITE, H1), "B4", "B0", "B3")
    line = next(line for line in headline(some, "B4", (), BANKS) if line.figure.startswith("false alarms"))
    assert line.reached is reached and f"in {hours} h" in line.measured


@pytest.mark.parametrize(("false", "hours", "reached"), [(3, 5.0, False), (3, 4.0, None)])
def test_a_world_that_is_too_bad_in_enough_hours_needs_no_other(false: int, hours: float, reached: bool | None) -> None:
    parts = {
        (1, "B4", world): part([True] * n, delays=DELAYS[:n], alarms=alarms(*rate))
        for world, n, rate in (("nominal", 4, (0, 30.0)), ("late", 2, (false, hours)), ("sloped", 2, (0, 0.5)))
    }
    some = figures(Results(parts, SUITE, H1), "B4", "B0", "B3")
    line = next(line for line in headline(some, "B4", (), BANKS) if line.figure.startswith("false alarms"))
    assert line.reached is reached


def test_the_worst_of_the_other_worlds_is_known_when_all_are(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere() -> list[bool | None]:
        lines = {line.figure: line for line in headline(found, "B4", (), BANKS)}
        return [lines[name].reached for name in lines if "other world" in name]

    assert elsewhere() == [False, True]
    monkeypatch.setattr(targets, "WALKED", WALKED)
    assert elsewhere() == [None, None]


def test_a_page_and_a_table_of_whatever_there_is(found: dict[str, Any], tmp_path: Path) -> None:
    page, table = benchmark_report.write(tmp_path, "a < b", found, headline(found, "B4", ("B1",), BANKS))
    text = page.read_text()
    assert "a &lt; b" in text and "did not take over the very same robots" in text and "<script" not in text
    assert text.count("<img") == 5 and "seeds 1, 2" in text
    assert table.read_text().count("\n| B4, someone | 75.0 % [") == 1
    elsewhere = part([True, False], delays=DELAYS[:2], alarms=alarms(0, 1.0))
    for name, one in (("B0", part([True, False])), ("B4", elsewhere)):
        only = figures(Results({(1, name, "late"): one}, SUITE, H1), "B4", "B0", "B3")
        assert list(only["detection"]) == ["B4"] * (name == "B4")
        page, _ = benchmark_report.write(
            tmp_path, "t", only | {"suite": found["suite"]}, headline(only, "B4", (), BANKS)
        )
        assert "intervals are over episodes alone" in page.read_text()
