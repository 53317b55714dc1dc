"""Opening data sets: whole, untouched, of the right robot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from koboshi.data.cache import Folder
from koboshi.data.card import COUNTED, OBS, DatasetCard
from koboshi.data.sequences import Sequences
from koboshi.data.shards import read_meta
from koboshi.data.split import load_split, part_of_rows, split_digest
from koboshi.errors import KoboshiError


class Dataset:
    """One or several complete data sets of one robot and one schema."""

    def __init__(self, folders: list[Folder]) -> None:
        self.folders = folders

    @property
    def card(self) -> DatasetCard:
        """The card of the newest data set, which speaks for robot, layouts and actuators of all."""
        return self.folders[-1].card

    @classmethod
    def open(
        cls,
        path: str | Path | Sequence[str | Path],
        expect_robot: str | None = None,
        expect_layouts: dict[str, str] | None = None,
    ) -> Dataset:
        """Reads cards and shard footers; the columns' digests are checked when `sequences` decodes them.

        `expect_layouts`: observation group -> a card's `layout_hash` of it. KoboshiError where a data set is missing,
        empty, not finished, lacks a shard, has one that is truncated or exchanged, or is of something else.
        """
        paths = [path] if isinstance(path, str | Path) else list(path)
        if not paths:
            raise KoboshiError("no data set given")
        folders = [_open_folder(Path(p)) for p in paths]
        first = folders[0].card
        robot = expect_robot or first.robot
        for folder in folders:
            card = folder.card
            if card.robot != robot:
                raise KoboshiError(f"data set {folder.path} is of robot '{card.robot}', not of '{robot}'")
            for group, layout in (expect_layouts or {}).items():
                if card.layout_hash(group) != layout:
                    raise KoboshiError(
                        f"data set {folder.path} has layout {card.layout_hash(group)} of group '{group}', not {layout}"
                    )
            if card.schema_hash != first.schema_hash:
                raise KoboshiError(
                    f"data set {folder.path} has other columns, layouts or joints than {folders[0].path} "
                    f"({', '.join(card.columns)}; {', '.join(first.columns)})"
                )
        return cls(folders)

    def sequences(self, columns: Sequence[str] | None = None, next_obs: bool = False) -> list[Sequences]:
        """All rows of some columns (default: all), memory-mapped; one entry a data set.

        `next_obs`: whether `Sequences.next_obs` will be asked.
        """
        return [self._read(folder, columns, next_obs) for folder in self.folders]

    def _read(self, folder: Folder, columns: Sequence[str] | None, next_obs: bool) -> Sequences:
        names = [n for n in folder.card.columns if n not in COUNTED] if columns is None else list(columns)
        frame = [name for name in ("episode", "reset", "terminated", "truncated") if name not in names]
        found = folder.columns(names + frame)
        groups = [name.removeprefix(OBS) for name in names if name.startswith(OBS)]
        part = part_of_rows(folder, found["episode"])
        return Sequences(folder.card, found, part, folder.final(groups) if next_obs else None)

    def split_digests(self) -> dict[str, str | None]:
        """Content of each data set -> digest of its split; None where it has none."""
        return {folder.card.content: split_digest(load_split(folder)) for folder in self.folders}

    def check_split(self, trained_with: dict[str, str], by: str) -> bool:
        """Whether these data have a split; KoboshiError where it is not the one that `by` was trained with.

        Data sets that `by` never saw may have any split, but all of them or none.
        """
        found = self.split_digests()
        for folder in self.folders:
            theirs, mine = trained_with.get(folder.card.content), found[folder.card.content]
            if theirs is not None and mine != theirs:
                what = "was altered" if mine is not None else "is gone"
                raise KoboshiError(
                    f"the split of data set {folder.path} {what} since {by} was trained on it "
                    f"(digest {mine}, not {theirs}); its test episodes may have been trained on"
                )
        split = [folder.path for folder in self.folders if found[folder.card.content] is not None]
        if split and len(split) < len(self.folders):
            without = next(f.path for f in self.folders if f.path not in split)
            raise KoboshiError(f"data set {split[0]} has a split and {without} has none; split both: koboshi data")
        return bool(split)


def _open_folder(path: Path) -> Folder:
    card = DatasetCard.load(path)
    if not card.complete:
        raise KoboshiError(f"data set {path} is not complete; to finish it, run again: {card.command}")
    shards: list[Path] = []
    steps: list[int] = []
    for name, digest in card.shards.items():
        if not (path / name).is_file():
            raise KoboshiError(f"data set {path} lacks {name}")
        meta = read_meta(path / name)
        expected = {"robot": card.robot, "schema": card.schema_hash, "envs": card.num_envs, "step0": sum(steps)}
        for key, value in {**expected, "digest": digest}.items():
            if getattr(meta, key) != value:
                raise KoboshiError(f"shard {path / name} has {key} {getattr(meta, key)}, its card says {value}")
        shards.append(path / name)
        steps.append(meta.steps)
    if not sum(steps):
        raise KoboshiError(f"data set {path} is empty")
    return Folder(path, card, shards, steps)
