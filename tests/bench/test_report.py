import html.parser
import json
import math
import re
from pathlib import Path

import pytest

from koboshi.bench.report import write_report
from koboshi.errors import KoboshiError

EVIL = "<script>alert('x')</script>"
METRICS = {
    "scenario": {"hash": "ab12" * 16, "episodes": 3400},
    "controllers": {
        "learned": {
            "survival_mean": 0.947, "survival_by_joint": {"left_knee": 0.8, EVIL: None}, "vx_rmse": 0.0912,
            "delay_ms_median": 60.0, "delay_ms_p95": None, "false_alarms_per_hour": math.nan,
        },
        "healthy": {"survival_mean": 0.42, "survival_by_joint": {"left_knee": 0.0}},
    },
    "differences": {EVIL: {"pairs": 12, "vx_rmse": 0.0123, "yaw_rmse": -0.5, "vy_rmse": None, "progress": 0.0}},
}  # fmt: skip


class _Reader(html.parser.HTMLParser):
    """Tags, addresses and whether every tag that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "poster", "data", "srcset")]
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> tuple[str, _Reader]:
    (tmp_path / "a.mp4").write_bytes(b"not really a video")
    path = tmp_path / "out" / "report.html"
    write_report(
        path, title=f"walk {EVIL}", metrics=METRICS,
        tables=[(EVIL, ["part", "µs"], [[EVIL, 41.25], ["router", None]])],
        pictures=[(EVIL, b"\x89PNG")], videos=[("first", tmp_path / "a.mp4"), (EVIL, tmp_path / "a.mp4")],
    )  # fmt: skip
    reader = _Reader()
    reader.feed(path.read_text())
    return path.read_text(), reader


def test_the_page_needs_nothing_from_outside(page: tuple[str, _Reader]) -> None:
    text, reader = page
    assert all(link.startswith("data:") for link in reader.links) and len(reader.links) == 3
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))


def test_everything_is_escaped(page: tuple[str, _Reader]) -> None:
    text, reader = page
    assert "script" not in reader.tags
    assert reader.open == []
    assert text.count("&lt;script&gt;") >= 6


def test_the_video_comes_first_and_figures_are_shown(page: tuple[str, _Reader]) -> None:
    _, reader = page
    assert reader.tags.index("video") < reader.tags.index("table")
    for words in ("94.7\u202f%", "60\u202fms", "learned switch", "0.0912", "41.2", "–", "+0.012", "-0.500", "12"):
        assert words in reader.text
    assert "nan" not in reader.text.split("metrics.json")[0].lower()
    assert json.loads(reader.text[reader.text.index('{\n  "scenario"') : reader.text.rindex("}") + 1])


def test_a_report_of_nothing_is_still_a_page(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", title="empty", metrics={})
    assert "<h1>empty</h1>" in (tmp_path / "r.html").read_text()


def test_without_faults_no_joint_is_broken_and_nothing_is_detected(tmp_path: Path) -> None:
    figures = {"survival_mean": 1.0, "survival_by_joint": {"none": 1.0}, "vy_rmse": 0.05}
    write_report(tmp_path / "r.html", title="t", metrics={"controllers": {"healthy": figures}})
    text = (tmp_path / "r.html").read_text()
    assert "sideways" in text and "0.05" in text
    assert not any(title in text for title in ("broken joint", "Detector", "Differences"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(KoboshiError, match=r"gone\.mp4"):
        write_report(tmp_path / "r.html", title="t", metrics={}, videos=[("v", tmp_path / "gone.mp4")])
    with pytest.raises(KoboshiError, match="row has 1 cells, the head has 2"):
        write_report(tmp_path / "r.html", title="t", metrics={}, tables=[("t", ["a", "b"], [[1]])])
    assert list(tmp_path.iterdir()) == []
