"""Parts of `koboshi bench gpu`: what runs on a CUDA machine, one part after the other, whatever one of them does."""

from __future__ import annotations

import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

import koboshi
from koboshi import runs
from koboshi.algos.learner import make_learner
from koboshi.bench import contract
from koboshi.bench.speed import seconds_of
from koboshi.envs import Env, EnvCfg
from koboshi.errors import KoboshiError

SIZES = (1024, 2048, 4096, 8192, 16384)
"""Environments at once."""
TESTED_DEVICE = "KOBOSHI_TEST_DEVICE"
"""Environment variable that tells the backend's tests which device to use for MuJoCo Warp."""
PACKAGES = ("torch", "mujoco", "mujoco-warp", "warp-lang", "mjbatch", "numpy")


class Part(NamedTuple):
    """One thing to measure: a function that a new process can import, and what to call it with."""

    function: Callable[..., dict[str, Any]]
    args: tuple[Any, ...] = ()


def cuda_device() -> str:
    """The first CUDA device; KoboshiError where there is none."""
    if not torch.cuda.is_available():
        raise KoboshiError(f"no CUDA device here (torch {torch.__version__}): `koboshi bench gpu` needs one")
    return "cuda:0"


def machine(device: str) -> dict[str, Any]:
    """What it runs on."""
    found: dict[str, Any] = {
        "device": device,
        "name": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if device.startswith("cuda"):
        found["name"] = torch.cuda.get_device_name(device)
        found["memory_gib"] = torch.cuda.get_device_properties(device).total_memory / 2**30
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run_parts(
    report: dict[str, Any],
    parts: dict[str, Part],
    path: Path,
    say: Callable[[str], None],
    prepare: Callable[[], None] | None = None,
) -> None:
    """Runs each part in a process of its own and adds what it gives, or why it failed, to `report["parts"]`.

    A GPU that one part has broken is whole again for the next. The report is written after every part. Each process
    calls `prepare` first, where there is one.
    """
    report["parts"] = {}
    for name, part in parts.items():
        began = time.monotonic()
        found = _run_alone(part, prepare)
        report["parts"][name] = {"seconds": time.monotonic() - began, **found}
        runs.write_json(path, report)
        say(f"{name}: {found.get('error') or '  '.join(f'{k} {_short(v)}' for k, v in found.items())}")


def _run_alone(part: Part, prepare: Callable[[], None] | None) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        try:
            return pool.submit(part.function, *part.args).result()
        except BrokenProcessPool:
            return {"error": "its process died"}
        except Exception as error:  # whatever it is, it belongs in the report, and the other parts go on
            lines = traceback.format_exception(error)
            return {"error": f"{type(error).__name__}: {error}", "traceback": "".join(lines)[-4000:]}


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else str(value)[:60]


def on_device(cfg: EnvCfg, device: str, num_envs: int) -> EnvCfg:
    """So many environments with MuJoCo Warp on a device."""
    return replace(cfg, num_envs=num_envs, sim=replace(cfg.sim, backend="warp", device=device))


def contract_part(device: str) -> dict[str, Any]:
    """The backend's contract: the repository's tests where it is a clone, and a few checks anywhere."""
    found: dict[str, Any] = dict(contract.run_checks("warp", device))
    tests = Path(koboshi.__file__).parents[2] / "tests" / "sim"
    return found | (_pytest(tests, device) if tests.is_dir() else {})


def _pytest(folder: Path, device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(
        command, env=os.environ | {TESTED_DEVICE: device}, cwd=folder.parents[1], capture_output=True, text=True
    )
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", last)}
    failed = {"error": last, "output": done.stdout[-4000:]} if done.returncode else {}
    return {"tests": counts} | failed


def env_part(cfg: EnvCfg, steps: int = 100, warm_up: int = 10) -> dict[str, Any]:
    """`env_steps_per_s`: environment steps/s under random actions, everything on."""
    env = Env(cfg)
    env.reset(0)
    action = torch.rand(steps, env.num_envs, env.action_space.dim, device=env.device) * 0.4 - 0.2

    def walk(count: int) -> None:
        for t in range(count):
            env.step(action[t])
        _wait(env.device)

    walk(min(warm_up, steps))  # compiles kernels and captures graphs
    return {"env_steps_per_s": cfg.num_envs * steps / seconds_of(lambda: walk(steps)), **_memory(env.device)}


def ppo_part(cfg: EnvCfg, agent: Any, iterations: int = 5) -> dict[str, Any]:
    """`ppo_steps_per_s`: control steps/s of collecting and learning together."""
    env = Env(cfg)
    learner = make_learner(env, agent)

    def learn(count: int) -> None:
        for _ in range(count):
            learner.iterate()
        _wait(env.device)

    learn(1)
    samples = cfg.num_envs * agent.trainer.rollout * iterations
    return {"ppo_steps_per_s": samples / seconds_of(lambda: learn(iterations)), **_memory(env.device)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> dict[str, float]:
    """GiB of the device in use, by whomever."""
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_gib": (total - free) / 2**30}
