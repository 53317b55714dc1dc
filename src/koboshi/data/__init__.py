"""Recorded transitions: Parquet shards with a card, read from disk as they are needed; splits, statistics, checks."""

from koboshi.data.card import FRAME, OBS, Column, DatasetCard, LawCard, transition_columns
from koboshi.data.dataset import Dataset
from koboshi.data.sequences import (
    PADDING,
    PARTS,
    UNSPLIT,
    Episodes,
    Faults,
    Sequences,
    find_episodes,
    find_faults,
    side_by_side,
)
from koboshi.data.shards import Chunk, Final, ShardWriter
from koboshi.data.split import draw_split
from koboshi.data.statistics import check, picture, statistics

__all__ = [
    "FRAME",
    "OBS",
    "PADDING",
    "PARTS",
    "UNSPLIT",
    "Chunk",
    "Column",
    "Dataset",
    "DatasetCard",
    "Episodes",
    "Faults",
    "Final",
    "LawCard",
    "Sequences",
    "ShardWriter",
    "check",
    "draw_split",
    "find_episodes",
    "find_faults",
    "picture",
    "side_by_side",
    "statistics",
    "transition_columns",
]
