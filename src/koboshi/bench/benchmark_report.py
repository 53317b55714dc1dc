"""The benchmark's page, one HTML file, and its table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from koboshi.bench import report
from koboshi.bench.report import Table
from koboshi.bench.targets import Line, number, points, share
from koboshi.bench.worlds import NOMINAL
from koboshi.runs import write_atomic
from koboshi.view import benchmark_plots, plots

K = ("k=0, walking", "k=1", "k=2", "k=3", "k=4")
COLUMNS = 4
"""Of figures with their intervals, that the page has room for."""
MARKS = {True: "reached", False: "not reached", None: "not measured"}
Json = Mapping[str, Any]


def write(folder: Path, title: str, figures: Json, lines: Sequence[Line]) -> tuple[Path, Path]:
    """Writes `report.html` and `table.md`; gives both."""
    page, table = folder / "report.html", folder / "table.md"
    write_atomic(table, markdown(figures, lines).encode())
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{_lead(figures)}</p>', _headline(lines)]
    parts.append(report.section("Plots", report.gallery(report.picture(*each) for each in _pictures(figures))))
    parts += [
        report.section(name, "".join(report.table(*each) for each in tables if each is not None and each[2]))
        for name, tables in _tables(figures)
    ]
    parts += _heats(figures)
    report.write_page(page, title, parts)
    return page, table


def _lead(figures: Json) -> str:
    seeds = figures["seeds"]
    words = f"suite <code>{escape(figures['suite']['name'])}</code>, hash <code>{figures['suite']['hash']}</code>; "
    if len(seeds) == 1:
        words += f"one training seed ({seeds[0]}): intervals are over episodes alone"
    else:
        words += (
            f"training seeds {', '.join(map(str, seeds))}: intervals (95 %) are over seeds and the episodes in them"
        )
    if not figures["same_states"]:
        words += (
            ". Controllers of a seed did not take over the very same robots (parts were made on different machines)"
        )
    return words + "."


def _headline(lines: Sequence[Line]) -> str:
    colours = {True: "var(--good)", False: "var(--bad)", None: "var(--soft)"}
    rows = [
        (
            escape(line.figure),
            [
                # A figure of several numbers needs more than one line.
                f'<td style="white-space:normal">{escape(line.wanted)}</td>'
                f'<td style="white-space:normal">{escape(line.measured)}</td>'
                f'<td style="color:{colours[line.reached]}">{MARKS[line.reached]}</td>'
            ],
        )
        for line in lines
    ]
    table = report.grid(("", "wanted", "measured [95 % interval]", ""), rows, "targets")
    return report.section("Targets", table)


def _tables(figures: Json) -> list[tuple[str, list[Table | None]]]:
    return [
        ("Controllers", [_controllers(figures)]),
        ("Survival by number of joints", [*_narrowed(_survival(figures)), _by_seed(figures)]),
        ("Course and strain, one joint broken", [*_narrowed(_course(figures)), _tracking(figures)]),
        ("Detection", [_detection(figures), _recall(figures)]),
        (f"{figures['main']} in every world", _in_worlds(figures)),
        ("False alarms", [_alarms(figures), _falls(figures)]),
        ("Differences", [_differences(figures)]),
        ("Kinds that training did not have", [_held_out(figures)]),
    ]


def _controllers(figures: Json) -> Table:
    rows = [
        [name, a["about"], a["steps"], a["parameters"], a["step_us"], a["cost_us"]]
        for name, a in figures["controllers"].items()
    ]
    heads = ("", "what", "environment steps", "numbers that act", "µs a step, alone", "µs a step, in a batch")
    return "Steps are those of all members together", heads, rows


def _survival(figures: Json) -> Table:
    strata = list(next(iter(next(iter(figures["survival"].values())).values())))
    found = {name: worlds[NOMINAL] for name, worlds in figures["survival"].items() if NOMINAL in worlds}
    rows = [[name, *(share(each[stratum]) for stratum in strata)] for name, each in found.items()]
    return "Nominal world, 20 s after the first onset", ("", *strata), rows


def _by_seed(figures: Json) -> Table:
    rows = [
        [name, seed, *(None if x is None else f"{100 * x:.1f} %" for x in strata.values())]
        for name, seeds in figures["by_seed"].items() for seed, strata in seeds.items()
    ]  # fmt: skip
    return "Each training seed by itself, nominal world", ("", "seed", *K[1:]), rows


def _course(figures: Json) -> Table:
    columns = {
        "sustained recovery": ("recovery", share), "heading error": ("heading_error", number("rad")),
        "of the worst joint": ("heading_error_worst", number("rad")), "path error": ("path_error", number("m")),
        "path progress": ("path_progress", number("")),
        "peak torque of healthy joints over limit": ("peak", number("")),
    }  # fmt: skip
    found = {name: worlds[NOMINAL] for name, worlds in figures["course"].items() if NOMINAL in worlds}
    rows = [[n, *(write(each[key]) for key, write in columns.values())] for n, each in found.items()]
    return "k = 1, nominal world", ("", *columns), rows


TRACKED = {"vx_rmse": number("m/s", 3), "vy_rmse": number("m/s", 3), "yaw_rmse": number("rad/s", 3)}
"""Key -> how it is written."""


def _tracking(figures: Json) -> Table:
    here = figures["tracking"].get(NOMINAL, {})
    rows = [[n, *(write(found[key]) for key, write in TRACKED.items())] for n, found in here.items()]
    heads = ("", "v_x RMSE", "v_y RMSE", "yaw rate RMSE")
    return "k = 1, nominal world, on the episodes that every controller of a seed survives", heads, rows


HEARD = (
    *(f"delay {which}" for which in ("dead, median", "dead, p95", "half-dead, median", "from load, median")),
    *("timely", "recall", *(f"exact k={k}" for k in range(5)), "kind macro-F1"),
)
"""Figures of a detector."""


def _heard(found: Json, key: str) -> str:
    write = {"delay": number("ms", 0), "kind": number("", 2)}
    return write.get(key.split()[0], share)(found[key])


def _detection(figures: Json) -> Table:
    found = {name: worlds[NOMINAL] for name, worlds in figures["detection"].items() if NOMINAL in worlds}
    rows = [[key, *(_heard(each, key) for each in found.values())] for key in HEARD]
    return "Nominal world", ("", *found), rows


def _recall(figures: Json) -> Table | None:
    found = figures["recall"].get(figures["main"], {}).get(NOMINAL)
    if found is None:
        return None
    sizes = [key for key in next(iter(found.values())) if key != "smallest"]
    rows = [[kind, *(row[size] for size in sizes), row["smallest"]] for kind, row in found.items()]
    caption = f"{figures['main']}: share alarmed within a second by severity, and the smallest with 95 %; nominal world"
    return caption, ("", *sizes, "smallest"), rows


def _in_worlds(figures: Json) -> list[Table | None]:
    """Tables of all figures that other worlds have too, none wider than the page."""
    makers = (_surviving_in_worlds, _walking_in_worlds, _hearing_in_worlds, _smallest_in_worlds)
    return [narrow for make in makers for narrow in _narrowed(make(figures))]


def _narrowed(table: Table) -> list[Table]:
    """The same in several tables of at most COLUMNS beside the first."""
    caption, heads, rows = table
    starts = range(1, len(heads), COLUMNS)
    return [
        (caption, (heads[0], *heads[i : i + COLUMNS]), [[row[0], *row[i : i + COLUMNS]] for row in rows])
        for i in starts
    ]


ELSEWHERE = ("k=0, walking", "k=0, standing", "k=1", "k=1, worst joint", "k=2", "k=2, worst joint", "k=2, held out")
"""Strata that are walked in every world."""


def _surviving_in_worlds(figures: Json) -> Table:
    main = figures["main"]
    sizes = figures["severity"].get(main, {})
    rows = [
        [world, *(share(each[key]) for key in ELSEWHERE), *(share(x) for x in sizes[world].values())]
        for world, each in figures["survival"].get(main, {}).items()
    ]
    severities = (f"k=1, severity {size}" for size in next(iter(sizes.values()), {}))
    return "Survival", ("", *ELSEWHERE, *severities), rows


def _walking_in_worlds(figures: Json) -> Table:
    """How well the main controller walks by world, and what the switch costs there."""
    main, rad = figures["main"], number("rad")
    rows = [
        [world, share(each["recovery"]), rad(each["heading_error"]), rad(each["heading_error_worst"]),
         number("m")(each["path_error"]), number("")(each["path_progress"]),
         *(write(figures["tracking"][world][main][key]) for key, write in TRACKED.items()), number("")(each["peak"]),
         share(figures["tax"][world]["tracking"]), points(figures["tax"][world]["survival"]),
         points(figures["regret"][world]["k=1"])]
        for world, each in figures["course"].get(main, {}).items()
    ]  # fmt: skip
    heads = ("", "sustained recovery", "heading error", "of the worst joint", "path error", "path progress",
             "v_x RMSE", "v_y RMSE", "yaw rate RMSE", "peak torque", "healthy tax, v_x RMSE", "survival",
             "switch regret")  # fmt: skip
    return "k = 1 (healthy tax: k = 0)", heads, rows


def _hearing_in_worlds(figures: Json) -> Table:
    found = figures["detection"].get(figures["main"], {})
    return "Detection", ("", *HEARD), [[world, *(_heard(each, key) for key in HEARD)] for world, each in found.items()]


def _smallest_in_worlds(figures: Json) -> Table:
    found = figures["recall"].get(figures["main"], {})
    rows = [[world, *(row["smallest"] for row in kinds.values())] for world, kinds in found.items()]
    kinds = (kind.replace("_", " ") for kind in next(iter(found.values()), {}))
    caption = (
        "Smallest severity from which on 95 % are alarmed within a second; in other worlds each kind and severity is "
        "walked with a quarter of the joints"
    )
    return caption, ("", *kinds), rows


def _alarms(figures: Json) -> Table:
    write = number("")
    rows = [
        [world, name, *(write(found["false alarms"][way]) for way in ("walking", "standing", "both")),
         found["false alarms"]["both"]["hours"], found["false alarms"]["both"]["falls"], write(found["wrong alarms"])]
        for name, worlds in figures["detection"].items() for world, found in worlds.items()
        if found["false alarms"]["both"] is not None
    ]  # fmt: skip
    heads = (
        "",
        "controller",
        "walking",
        "standing",
        "both",
        "hours",
        "falls in them",
        "on joints that are well, all episodes",
    )
    return "An hour of one robot; banks under one detector share them", heads, rows


def _falls(figures: Json) -> Table:
    found = {world: each["falls"] for world, each in figures["tax"].items() if any(each["falls"].values())}
    names = list(next(iter(found.values()), {}))
    rows = [[world, *(number("")(each[name]) for name in names)] for world, each in found.items()]
    return "Falls an hour of robots that are well, in the same hours", ("", *names), rows


def _differences(figures: Json) -> Table:
    main = figures["main"]
    rows = [[f"{main} − {n}", *(points(x) for x in found.values())] for n, found in figures["differences"].items()]
    strata = list(next(iter(figures["differences"].values()), {}))
    return "Survival, paired by episode", ("", *strata), rows


def _held_out(figures: Json) -> Table:
    rows = [
        [name, world, share(each["survival"]), ", ".join(each["kinds"])]
        for name, worlds in figures["held_out_kinds"].items() for world, each in worlds.items() if each
    ]  # fmt: skip
    return "k = 1", ("", "world", "survival", "kinds"), rows


def _heats(figures: Json) -> list[str]:
    parts = []
    for name in figures["heat"]:
        if name in (figures["main"], "B0", "B3"):
            rows = [
                (escape(joint), [report.heat_cell(x) for x in kinds.values()])
                for joint, kinds in figures["heat"][name].items()
            ]
            heads = ["", *(kind.replace("_", " ") for kind in next(iter(figures["heat"][name].values())))]
            caption = f"{name}: survival in per cent, all severities, nominal world"
            parts.append(report.section(f"Joints and kinds, {name}", report.grid(heads, rows, "heat", caption)))
    worlds = figures["worlds"]
    rows = [
        (escape(name), [report.heat_cell(((found.get(w) or {}).get("k=1") or {}).get("value")) for w in worlds])
        for name, found in figures["survival"].items()
    ]
    table = report.grid(["", *worlds], rows, "heat", "Survival in per cent with one joint broken")
    return [*parts, report.section("Worlds", table)]


def _pictures(figures: Json) -> list[tuple[str, bytes]]:
    return [*_survival_plots(figures), *_alarm_plots(figures), *_difference_plot(figures)]


def _survival_plots(figures: Json) -> list[tuple[str, bytes]]:
    here = {name: found[NOMINAL] for name, found in figures["survival"].items() if NOMINAL in found}
    if not here:
        return []
    by_k = {name: [each[k] for k in K] for name, each in here.items()}
    by_size = {name: found[NOMINAL] for name, found in figures["severity"].items() if NOMINAL in found}
    sizes = {name: list(each.values()) for name, each in by_size.items()}
    numbers = [k.split(",")[0].removeprefix("k=") for k in K]
    severities = list(next(iter(by_size.values())))
    lines, y = benchmark_plots.lines, "survival, %"
    return [
        ("Nominal world", lines(by_k, numbers, title="Survival by number of broken joints", x="joints", y=y)),
        ("Nominal world", lines(sizes, severities, title="Survival by severity, one joint", x="severity", y=y)),
    ]


def _alarm_plots(figures: Json) -> list[tuple[str, bytes]]:
    main, found = figures["main"], []
    if any(figures["delays"].get(main, {}).values()):
        found.append((f"{main}: from onset to alarm", plots.delay_cdf(figures["delays"][main])))
    alarms = {w: each["false alarms"]["both"] for w, each in figures["detection"].get(main, {}).items()}
    if alarms:
        title = f"False alarms of {main} by world"
        found.append((title, benchmark_plots.rates(alarms, title=title, x="an hour of one robot", limit=1.0)))
    return found


def _difference_plot(figures: Json) -> list[tuple[str, bytes]]:
    gaps = {f"{figures['main']} − {name}": each["k=1"] for name, each in figures["differences"].items()}
    title = "Survival with one joint broken, paired"
    return [(title, benchmark_plots.forest(gaps, title=title, x="percentage points"))] if gaps else []


def markdown(figures: Json, lines: Sequence[Line]) -> str:
    """Two tables for a README: targets, and survival by controller."""
    targets = [[line.figure, line.wanted, line.measured, MARKS[line.reached]] for line in lines]
    found = {name: worlds[NOMINAL] for name, worlds in figures["survival"].items() if NOMINAL in worlds}
    keys = ("k=1", "k=1, worst joint", "k=2", "k=3", "k=4")
    rows = [[_who(figures, name), *(share(each[key]) for key in keys)] for name, each in found.items()]
    suite, seeds = figures["suite"], ", ".join(map(str, figures["seeds"]))
    words = f"Suite {suite['name']} (`{suite['hash']}`), training seeds {seeds}.\n\n"
    return words + _markdown(("figure", "wanted", "measured", ""), targets) + "\n" + _markdown(("", *keys), rows)


def _who(figures: Json, name: str) -> str:
    """A controller, and its training seeds where it has not all of them."""
    seeds = list(figures["by_seed"].get(name, {}))
    lacks = len(seeds) < len(figures["seeds"])
    return f"{name}, {figures['controllers'][name]['about']}" + (f" (seed {', '.join(seeds)} alone)" if lacks else "")


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in table)
