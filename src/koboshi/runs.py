"""Run folders, and files that are written whole or not at all.

A run is `runs/<task>/<name>/` with `config.yaml`, `overrides.txt`, `metrics.jsonl`, TensorBoard events
and `checkpoints/`. `checkpoints/<step>.safetensors` hold weights alone: they are small, and all of
them stay. `resume.safetensors` holds everything that an exact resume needs: it is large, and there is one of
it, replaced each time. Each is one safetensors file that carries its own digest; loading one never runs code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from koboshi.errors import KoboshiError, unknown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FINAL = "final.safetensors"
"""The last checkpoint of a run that is finished, under a name that needs no searching."""
RESUME = "resume.safetensors"
_NUMBERED = re.compile(r"\d{9,}\.safetensors")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success fsyncs and renames it, on failure removes it.

    The temporary name starts with a dot and keeps the suffix, since some writers choose a format by it;
    glob with a prefix (`shard-*.parquet`) and what a killed process left behind is never seen.
    Raises KoboshiError with the bytes free where the disk is full, or where writing is not allowed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            free = shutil.disk_usage(path.parent).free
            raise KoboshiError(f"no space left to write {path} ({free} bytes free)") from error
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            raise KoboshiError(f"cannot write {path}: {error.strerror}") from error
        raise


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all; makes the folder. Errors: see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Writes `obj` as indented JSON, whole or not at all."""
    write_atomic(path, (json.dumps(obj, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file; KoboshiError where it is missing or not whole."""
    try:
        return json.loads(Path(path).read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise KoboshiError(f"no file {path}") from None
    except ValueError as error:
        raise KoboshiError(f"{path} is not valid JSON (truncated?): {error}") from error


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a file such as `metrics.jsonl`; KoboshiError where it is not there or damaged."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        raise KoboshiError(f"no metrics file {path}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):  # a killed run may leave its last line cut; any other is damage
                raise KoboshiError(f"{path}, line {number}: not JSON ({error})") from error
    return rows


def settled(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The last `share` of a run's rows, one at least."""
    return rows[-max(1, round(share * len(rows))) :]


def digest(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, in hex."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        raise KoboshiError(f"no file {path}") from None


def save_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes one safetensors file, whole or not at all, with `meta` (JSON data) and a digest of it all."""
    # Clones, because safetensors refuses tensors that share memory (as stacked parameters do).
    cpu = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(dict(meta), sort_keys=True)
    header = {"meta": text, "sha256": _content_digest(cpu, text)}
    write_atomic(path, _sorted_header(safetensors.torch.save(cpu, metadata=header)))


def load_checkpoint(
    path: str | os.PathLike[str], expect: Mapping[str, Any] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and meta of a checkpoint.

    `expect` names entries of meta that must have these values. KoboshiError where the file is missing,
    truncated, altered since it was written, or made for something else.
    """
    path = Path(path)
    if not path.is_file():
        raise KoboshiError(f"no checkpoint {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Clones, since what safetensors gives is a view of the mapped file, which may be replaced.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise KoboshiError(f"checkpoint {path} is truncated or not a safetensors file: {error}") from error
    if "meta" not in header or "sha256" not in header:
        raise KoboshiError(f"checkpoint {path} was not written by koboshi (no meta and digest in its header)")
    if _content_digest(tensors, header["meta"]) != header["sha256"]:
        raise KoboshiError(f"checkpoint {path} was altered since it was written (its digest differs)")
    meta: dict[str, Any] = json.loads(header["meta"])
    for key, wanted in json.loads(json.dumps(dict(expect or {}))).items():
        if meta.get(key) != wanted:
            raise KoboshiError(f"checkpoint {path} was made for {key} {meta.get(key)!r}, not {wanted!r}")
    return tensors, meta


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its JSON header in order, so that equal checkpoints are equal files."""
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _content_digest(tensors: Mapping[str, Tensor], meta: str) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    sha.update(meta.encode())
    return sha.hexdigest()


def check_shapes(tensors: Mapping[str, Tensor], module_state: Mapping[str, Tensor], what: str) -> None:
    """KoboshiError naming the first few tensors that `what` lacks, does not know or shapes otherwise."""
    wrong = [f"missing {name}" for name in module_state if name not in tensors]
    wrong += [f"unexpected {name}" for name in tensors if name not in module_state]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in module_state.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise KoboshiError(f"these weights do not fit {what}: {'; '.join(wrong[:4])}{more}")


class RunFolder:
    """One run on disk, `root/<task>/<name>/`. Only one process writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    @classmethod
    def open(cls, root: Path, task: str, name: str | None = None) -> RunFolder:
        """Makes the folder, or opens the one there is; without a name, one named after the time."""
        run = cls(Path(root) / task / (name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        return run

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The finished run's weights; the file is there once all iterations are done."""
        return self.checkpoints / FINAL

    @property
    def resume(self) -> Path:
        """Everything that an exact resume needs, of the newest iteration that was saved."""
        return self.path / RESUME

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line to metrics.jsonl (what is not finite as null) and the values to TensorBoard."""
        finite = {key: float(v) if math.isfinite(v) else None for key, v in values.items()}
        with open(self.metrics, "a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        writer = self._tensorboard()
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    def truncate_metrics(self, step: int) -> None:
        """Forgets what was logged after `step`, so that a run resumed from there has each step once."""
        if self.metrics.exists():
            lines = self.metrics.read_text().splitlines(keepends=True)
            write_atomic(self.metrics, "".join(line for line in lines if _logged_by(line, step)).encode())
        self.close()
        self._purge_step = step + 1

    def save(self, step: int, weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
        """Writes checkpoints/<step>.safetensors: weights alone."""
        path = self.checkpoints / f"{step:09d}.safetensors"
        save_checkpoint(path, weights, {**meta, "step": step})
        return path

    def save_final(self, step: int, weights: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Writes checkpoints/final.safetensors, which says that the run is finished."""
        save_checkpoint(self.final, weights, {**meta, "step": step})

    def latest(self) -> Path | None:
        """The newest weights that are whole; a file that is not is named on stderr and passed over."""
        for path in [*reversed(self._numbered()), *([self.final] if self.final.exists() else [])]:
            try:
                load_checkpoint(path)
            except KoboshiError as error:
                print(f"{error}; trying the one before", file=sys.stderr)
            else:
                return path
        return None

    def measured_once(self, test: Any, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `measure` finds of the finished run; from `compared.json` where policy and test (JSON) were the same."""
        file, made_of = self.path / "compared.json", {"policy": digest(self.final), "test": test}
        known: dict[str, Any] = read_json(file) if file.exists() else {}
        if known.get("made_of") != made_of:
            known = {"made_of": made_of, "commit": git_commit()} | measure()
            write_json(file, known)
        return known

    def close(self) -> None:
        """Flushes the TensorBoard events; a later `log` opens a new file of them."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _numbered(self) -> list[Path]:
        if not self.checkpoints.is_dir():
            return []
        found = (path for path in self.checkpoints.iterdir() if _NUMBERED.fullmatch(path.name))
        return sorted(found, key=lambda path: int(path.stem))

    def _tensorboard(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.path), purge_step=self._purge_step)
        return self._writer


def _logged_by(line: str, step: int) -> bool:
    """Whether a line of metrics.jsonl is whole (a kill may cut the last one) and not after `step`."""
    return line.endswith("\n") and json.loads(line)["step"] <= step


def list_runs(root: Path = Path("runs")) -> list[Path]:
    """The run folders under `root`, oldest first."""
    found = (path.parent for path in Path(root).glob("*/*/checkpoints"))
    return sorted(found, key=lambda path: (path.stat().st_mtime, path))


def resolve_run(path_or_name: str | os.PathLike[str], root: Path = Path("runs")) -> Path:
    """The weights meant by a file, a run folder (its newest) or `task/name` under `root`."""
    for path in (Path(path_or_name), Path(root) / path_or_name):
        if path.is_file():
            return path
        if (path / "checkpoints").is_dir():
            newest = RunFolder(path).latest()
            if newest is None:
                raise KoboshiError(f"run {path} has no whole checkpoint")
            return newest
    names = [path.relative_to(root).as_posix() for path in list_runs(root)]
    raise unknown("run", path_or_name, names)


@lru_cache
def git_commit() -> str:
    """The short hash of the commit this package is run from, or 'unknown' outside a clone.

    Asked once: a long run is of the code it began with, whatever is committed meanwhile.
    """
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        # Asked first, since an installed package may lie inside some other repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()
