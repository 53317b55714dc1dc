"""Parts of the benchmark as files: their names, what they tell of themselves, and which belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from koboshi import config, runs
from koboshi.errors import KoboshiError
from koboshi.stages.entrants import ENTRANTS

FORMAT = 2
"""Raised when what a part holds changes."""
OWN = ("part", "walker", "files")
"""Of an identity, what not all parts of a benchmark share."""


class Wanted(NamedTuple):
    """A part's name."""

    seed: int
    controller: str
    world: str

    def path(self, folder: Path) -> Path:
        return folder / f"seed{self.seed}" / self.controller / f"{self.world}.json"

    def __str__(self) -> str:
        return f"seed {self.seed} {self.controller} {self.world}"


def load_part(path: Path) -> dict[str, Any]:
    """A part's file; KoboshiError where it is not whole or not a part of this format."""
    part = runs.read_json(path)
    if not isinstance(part, dict) or not {"identity", "columns", "about"} <= set(part):
        raise KoboshiError(f"{path} is no part of a benchmark")
    if part["identity"].get("format") != FORMAT:
        raise KoboshiError(f"{path} has format {part['identity'].get('format')}, not {FORMAT}")
    return part


def find_parts(folders: Sequence[Path]) -> dict[Wanted, Path]:
    """The parts in these folders; of one that is in several the first."""
    found: dict[Wanted, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise KoboshiError(f"no folder {folder}")
        for path in sorted(folder.glob("seed*/*/*.json")):
            number = path.parts[-3].removeprefix("seed")
            # A file that is being written, or was when its process was killed, has a name that begins with a dot.
            if number.isdigit() and path.parts[-2] in ENTRANTS and not path.name.startswith("."):
                found.setdefault(Wanted(int(number), path.parts[-2], path.stem), path)
    return found


def joined(folders: Sequence[Path]) -> dict[Wanted, dict[str, Any]]:
    """All parts of these folders; KoboshiError where one is damaged, or where two do not belong together."""
    where = {wanted: str(path) for wanted, path in find_parts(folders).items()}
    if not where:
        raise KoboshiError(f"no part of a benchmark in {', '.join(map(str, folders))}")
    parts = {wanted: load_part(Path(path)) for wanted, path in where.items()}
    first: dict[tuple[Any, ...], Wanted] = {}
    walkers: dict[str, Wanted] = {}
    for wanted, part in parts.items():
        shared = tuple(name for name in part["identity"] if name not in OWN)
        # What all parts share; what all of a seed share; what all of a seed's controller share.
        for group, names in (((), shared), ((wanted.seed,), ("walker",)), (wanted[:2], ("files",))):
            other = first.setdefault(group, wanted)
            _check_alike(parts[other]["identity"], part["identity"], names, where[other], where[wanted])
        same = walkers.setdefault(part["identity"]["walker"], wanted)
        if same.seed != wanted.seed:
            raise KoboshiError(
                f"{where[same]} and {where[wanted]} are of one controller, which is not two training seeds"
            )
        if part["identity"]["part"] != wanted._asdict():
            raise KoboshiError(f"{where[wanted]} holds another part, {part['identity']['part']}")
    return parts


def _check_alike(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str], one: str, other: str) -> None:
    """KoboshiError where two identities differ in what they are to share."""
    ours, theirs = ({name: identity[name] for name in names} for identity in (a, b))
    if differ := config.diff(ours, theirs):
        raise KoboshiError(f"{one} and {other} do not belong to one benchmark: {'; '.join(differ[:4])}")
