"""Recorded data: Parquet shards with a card, their statistics and checks."""

from koboshi.data.card import DatasetCard, PdCard
from koboshi.data.dataset import Dataset, split
from koboshi.data.sequences import Episodes, Faults, Sequences, find_episodes, find_faults
from koboshi.data.shards import Chunk, ShardWriter
from koboshi.data.statistics import check, picture, statistics

__all__ = [
    "Chunk",
    "Dataset",
    "DatasetCard",
    "Episodes",
    "Faults",
    "PdCard",
    "Sequences",
    "ShardWriter",
    "check",
    "find_episodes",
    "find_faults",
    "picture",
    "split",
    "statistics",
]
