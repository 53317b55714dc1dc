import io
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from koboshi.errors import KoboshiError
from koboshi.view import Trajectory, plots

METRICS = {
    "controllers": {
        "learned": {
            "survival_mean": 0.9,
            "survival_worst": 0.8,
            "survival_by_joint": {"left_knee": 0.8, "torso": 1.0},
        },
        "healthy": {
            "survival_mean": 0.5,
            "survival_worst": None,
            "survival_by_joint": {"left_knee": 0.0, "torso": None},
        },
    }
}


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the figures that are saved."""
    seen: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def spy(self: matplotlib.figure.Figure, *args: object, **kwargs: object) -> None:
        save(self, *args, **kwargs)
        seen.extend(t.get_text() for t in self.findobj(matplotlib.text.Text))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", spy)
    return seen


def _drawn(png: bytes) -> bool:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L")).std() > 5


def test_survival_bars(texts: list[str], tmp_path: Path) -> None:
    assert _drawn(plots.survival_mean_bars(METRICS, tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert {"healthy only", "90.0", "survival, %", "worst joint"} <= set(texts)
    with pytest.raises(KoboshiError, match="no controllers"):
        plots.survival_mean_bars({})


def test_learning_curve(texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": i, "reward": i**0.5, "kl": 0.01}) for i in range(20)]
    path.write_text("\n".join([*rows, '{"step": 2']))  # the last line cut by a kill
    assert _drawn(plots.learning_curve(path))
    assert {"reward", "kl", "step"} <= set(texts)
    with pytest.raises(KoboshiError, match="keys: step, reward, kl"):
        plots.learning_curve(path, keys=["rewrad"])
    path.write_text("\n".join(['{"step"', *rows]))
    with pytest.raises(KoboshiError, match="line 1"):
        plots.learning_curve(path)


def test_delay_and_timeline(walk: Callable[..., Trajectory], texts: list[str]) -> None:
    assert _drawn(plots.delay_cdf({"with torques": [20, 40, None, np.inf], "nothing seen": [None]}))
    assert {"with torques", "faults, %"} <= set(texts)
    assert _drawn(plots.timeline(walk(fell_at=0.9)))
    assert {"switch", "left_knee breaks", "noticed +100 ms", "fell", "probability", "time, s"} <= set(texts)
    assert texts.count("noticed +100 ms") == 1
