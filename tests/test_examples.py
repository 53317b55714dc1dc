"""The example of a controller in a loop of one's own."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_loop.py"


def test_the_knee_is_noticed_and_a_specialist_walks_on() -> None:
    (noticed,) = runpy.run_path(str(EXAMPLE))["walk"]()
    found = re.fullmatch(r"(\d\.\d\d) s: alarms left_knee; a specialist acts", noticed)
    assert found is not None and 3.0 < float(found[1]) < 3.5, noticed
