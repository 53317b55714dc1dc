"""One HTML file about one evaluation that opens anywhere: no network, no scripts, pictures inside."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from koboshi.bench.metrics import COURSE, HEALTHY
from koboshi.errors import KoboshiError
from koboshi.runs import write_atomic
from koboshi.view.plots import HEAT, LABELS

_CONTROLLER_ROWS = (
    ("survival_mean", "survival, mean", "percent"),
    ("survival_worst", "survival, worst joint", "percent"),
    ("fell_before_onset", "fell before the fault (left out)", "plain"),
    ("vx_rmse", "forward speed RMSE", "m/s"),
    ("vy_rmse", "sideways speed RMSE", "m/s"),
    ("yaw_rmse", "yaw rate RMSE", "rad/s"),
    ("progress", "progress", "plain"),
    ("heading_error", "heading error at the end", "rad"),
    ("heading_error_worst", "heading error at the end, worst joint", "rad"),
    ("path_error", "distance from the path", "m"),
    ("path_progress", "progress along the path", "plain"),
    ("recovery", "sustained recovery", "percent"),
    ("duty_difference", "duty, left less right", "plain"),
)
_DETECTOR_ROWS = (
    ("delay_ms_median", "delay to the alarm, median", "ms"),
    ("delay_ms_p95", "delay to the alarm, 95th percentile", "ms"),
    ("switch_ms_median", "delay to the switch, median", "ms"),
    ("switch_ms_p95", "delay to the switch, 95th percentile", "ms"),
    ("missed", "missed", "plain"),
    ("false_alarms_per_hour", "false alarms per robot-hour", "plain"),
    ("macro_f1", "macro-F1", "plain"),
)
_DIFFERENCE_ROWS = (
    ("pairs", "episodes that both survive", "plain"),
    ("vx_rmse", "forward speed RMSE, m/s", "signed"),
    ("vy_rmse", "sideways speed RMSE, m/s", "signed"),
    ("yaw_rmse", "yaw rate RMSE, rad/s", "signed"),
    ("progress", "progress", "signed"),
    ("heading_error", "heading error at the end, rad", "signed"),
    ("path_error", "distance from the path, m", "signed"),
    ("path_progress", "progress along the path", "signed"),
)
_FOOTER = "Written by koboshi. This file needs no network: pictures and videos are inside it."
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

Row = tuple[str, str, str]
"""Key, words, unit."""
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]
"""Caption, column heads, rows of cells."""

_CSS = """
:root{--ink:#1a222e;--soft:#5c6776;--line:#e1e6ec;--paper:#fff;--wash:#f5f7f9;--accent:#00658f;
--good:#008a64;--bad:#c4470a;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e7ecf2;--soft:#9aa6b4;--line:#2b3440;--paper:#12171e;
--wash:#1a212a;--accent:#6fc1ea;--good:#3fc79a;--bad:#ff8a50}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2.2rem 1.25rem 4rem}
h1{font-size:clamp(1.55rem,3.6vw,2.15rem);line-height:1.2;letter-spacing:-.015em;margin:0 0 .3rem}
h2{font-size:1.2rem;letter-spacing:-.005em;margin:2.6rem 0 .8rem}
.lead{color:var(--soft);margin:0 0 1.6rem}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
figure{margin:0 0 1.4rem}
video,figure img{display:block;max-width:100%;border:1px solid var(--line);border-radius:10px;background:#fff}
video{width:100%}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.5rem}
.gallery{display:grid;gap:1.4rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));align-items:start}
.gallery figure{margin:0}
.cards{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));margin:1.4rem 0 0}
.card{background:var(--wash);border:1px solid var(--line);border-radius:10px;padding:.8rem .95rem}
.card b{display:block;font-size:1.5rem;line-height:1.25;
font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.card span{color:var(--soft);font-size:.84rem}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{caption-side:top;text-align:left;color:var(--soft);padding:.6rem .7rem .3rem;font-size:.88rem}
th,td{padding:.45rem .7rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;white-space:normal;vertical-align:bottom;
font-weight:600;color:var(--soft);background:var(--wash)}
th:first-child,td:first-child{text-align:left;font-weight:500}
tbody th{font-weight:500}
.wide+.wide{margin-top:1.2rem}
.heat td{text-align:center;min-width:5.2rem;border:2px solid var(--paper)}
.heat th{border-color:var(--paper)}
.targets tbody th{white-space:normal}
.unit{color:var(--soft);font-weight:400;font-size:.85em}
details{border:1px solid var(--line);border-radius:10px;padding:.7rem .95rem;margin-top:.8rem}
summary{cursor:pointer;font-weight:500}
pre{overflow:auto;max-height:28rem;font:.82rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{color:var(--soft);font-size:.85rem;margin-top:3rem;border-top:1px solid var(--line);padding-top:1rem}
@media print{video,details{display:none}}
"""


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    metrics: Mapping[str, Any],
    tables: Sequence[Table] = (),
    pictures: Sequence[tuple[str, bytes]] = (),
    videos: Sequence[tuple[str, Path]] = (),
    lead: str = "",
) -> None:
    """Writes one HTML file with everything inside, whole or not at all.

    `metrics` as `koboshi evaluate` writes it (missing or null: a dash); `tables`: (caption, heads, rows);
    `pictures`: (caption, PNG bytes); `videos`: (caption, MP4 file), the first on top. `lead` is the line
    under the title. All text is escaped. Raises KoboshiError where a video cannot be read.
    """
    controllers = _ordered(metrics.get("controllers") or {})
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead) if lead else _scenario_line(metrics)}</p>',
        *(_video(*video) for video in videos[:1]),
        _cards(controllers),
        section("Controllers", _controller_table(controllers)),
        section("Differences", _difference_table(metrics.get("differences") or {})),
        section("Detector", _detector_table(controllers)),
        section("Survival by broken joint", _heat_table(controllers)),
        section("Tables", "".join(table(*each) for each in tables)),
        section("Plots", gallery(picture(*each) for each in pictures)),
        section("More videos", gallery(_video(*video) for video in videos[1:])),
        section("Raw figures", _raw(metrics)),
    ]
    write_page(path, title, parts)


def write_page(path: str | os.PathLike[str], title: str, parts: Iterable[str]) -> None:
    """Writes one HTML file of parts that are HTML already (empty ones are left out), whole or not at all."""
    document = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<footer>{_FOOTER}</footer>\n</main></body></html>\n"
    )
    write_atomic(path, document.encode())


def _ordered(controllers: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    known = [name for name in LABELS if name in controllers]
    return {name: controllers[name] for name in [*known, *(n for n in controllers if n not in LABELS)]}


def section(title: str, body: str) -> str:
    """A part of the page as HTML; nothing where `body` is empty."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _number(value: Any, unit: str) -> str:
    """A figure in words; a dash where it is missing or not finite."""
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return "–"
    if isinstance(value, str | bool):
        return escape(str(value))
    if unit == "signed":
        return f"{value:+.3f}"
    if unit == "percent":
        return f"{100 * value:.1f}&#8239;%"
    if unit == "ms":
        return f"{value:.0f}&#8239;ms"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "&#8239;")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "&#8239;")


def _scenario_line(metrics: Mapping[str, Any]) -> str:
    scenario = metrics.get("scenario") or {}
    words = []
    if scenario.get("episodes") is not None:
        words.append(f"{_number(scenario['episodes'], 'plain')} frozen episodes")
    if scenario.get("hash"):
        words.append(f"scenario <code>{escape(str(scenario['hash'])[:16])}</code>")
    if metrics.get("world"):
        words.append(f"world <code>{escape(str(metrics['world']))}</code>")
    return ", ".join(words) or "Evaluation on frozen scenarios"


def _cards(controllers: Mapping[str, Mapping[str, Any]]) -> str:
    learned, healthy = controllers.get("learned", {}), controllers.get("healthy", {})
    cards = [
        (learned.get("survival_mean"), "percent", "survive with the learned switch"),
        (healthy.get("survival_mean"), "percent", "survive without any switch" if learned else "survive"),
        (learned.get("survival_worst"), "percent", "survive with the worst joint"),
        (learned.get("delay_ms_median"), "ms", "median delay to the alarm"),
        (learned.get("false_alarms_per_hour"), "plain", "false alarms per robot-hour"),
    ]
    shown = [
        f'<div class="card"><b>{_number(value, unit)}</b><span>{escape(words)}</span></div>'
        for value, unit, words in cards
        if value is not None
    ]
    return f'<div class="cards">{"".join(shown)}</div>' if shown else ""


def grid(head: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]], kind: str = "", caption: str = "") -> str:
    """A table of cells that are HTML already."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>' for name, cells in rows)
    words = f"<caption>{escape(caption)}</caption>" if caption else ""
    table = f'<table class="{kind}">{words}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _heads(controllers: Iterable[str]) -> list[str]:
    return ["", *(escape(LABELS.get(name, name)) for name in controllers)]


def _measured(rows: Iterable[Row], columns: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Without the figures of headings where no episode held one."""
    return [row for row in rows if row[0] not in COURSE or any(c.get(row[0]) is not None for c in columns.values())]


def _controller_table(controllers: Mapping[str, Mapping[str, Any]]) -> str:
    if not controllers:
        return ""
    rows = []
    for key, words, unit in _measured(_CONTROLLER_ROWS, controllers):
        name = escape(words) + (f' <span class="unit">{unit}</span>' if unit in ("m/s", "rad/s", "rad", "m") else "")
        rows.append((name, [f"<td>{_number(c.get(key), unit)}</td>" for c in controllers.values()]))
    return grid(_heads(controllers), rows)


def _detector_table(controllers: Mapping[str, Mapping[str, Any]]) -> str:
    found = {n: c for n, c in controllers.items() if any(key in c for key, _, _ in _DETECTOR_ROWS)}
    if not found:
        return ""
    rows = [
        (escape(words), [f"<td>{_number(c.get(key), unit)}</td>" for c in found.values()])
        for key, words, unit in _DETECTOR_ROWS
    ]
    return grid(_heads(found), rows)


def _difference_table(differences: Mapping[str, Mapping[str, Any]]) -> str:
    if not differences:
        return ""
    rows = [
        (escape(words), [f"<td>{_number(found.get(key), unit)}</td>" for found in differences.values()])
        for key, words, unit in _measured(_DIFFERENCE_ROWS, differences)
    ]
    caption = "Mean of the episodes' differences, over those that both controllers survive"
    return grid(["", *map(escape, differences)], rows, caption=caption)


def _heat_table(controllers: Mapping[str, Mapping[str, Any]]) -> str:
    joints = list(dict.fromkeys(j for c in controllers.values() for j in c.get("survival_by_joint") or {}))
    if set(joints) <= {HEALTHY}:
        return ""
    rows = [
        (
            escape(joint),
            [heat_cell((c.get("survival_by_joint") or {}).get(joint)) for c in controllers.values()],
        )
        for joint in joints
    ]
    return grid(_heads(controllers), rows, "heat", "Share of episodes still walking, the named joint broken")


def heat_cell(value: float | None) -> str:
    """A cell of a share from 0 to 1, in per cent and coloured by it."""
    if value is None or not math.isfinite(value):
        return "<td>–</td>"
    place = min(max(value, 0.0), 1.0) * (len(HEAT) - 1)
    low = min(int(place), len(HEAT) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(HEAT[low], HEAT[low + 1], strict=True))
    ink = "#fff" if 0.299 * red + 0.587 * green + 0.114 * blue < 130 else "#1a222e"
    return f'<td style="background:rgb({red},{green},{blue});color:{ink}">{100 * value:.0f}</td>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of values, each row as long as `head`."""
    for row in rows:
        if len(row) != len(head):
            raise KoboshiError(f"table '{caption}': a row has {len(row)} cells, the head has {len(head)}")
    cells = [
        (_number(row[0], "plain"), [f"<td>{_number(cell, 'plain')}</td>" for cell in row[1:]]) for row in rows if row
    ]
    return grid((escape(h) for h in head), cells, caption=caption)


def gallery(figures: Iterable[str]) -> str:
    """Pictures side by side."""
    body = "".join(figures)
    return f'<div class="gallery">{body}</div>' if body else ""


def picture(caption: str, png: bytes) -> str:
    """A picture inside the page."""
    data, words = base64.b64encode(png).decode(), escape(caption)
    image = f'<img alt="{words}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{words}</figcaption></figure>"


def _video(caption: str, path: Path) -> str:
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise KoboshiError(f"cannot read video {path}: {error.strerror}") from error
    source = f'<source src="data:video/mp4;base64,{data}" type="video/mp4">'
    tag = f"<video controls playsinline muted loop preload=auto>{source}</video>"
    return f"<figure>{tag}<figcaption>{escape(caption)}</figcaption></figure>"


def _raw(metrics: Mapping[str, Any]) -> str:
    text = escape(json.dumps(metrics, indent=2, default=str))
    return f"<details><summary>metrics.json</summary><pre>{text}</pre></details>"
