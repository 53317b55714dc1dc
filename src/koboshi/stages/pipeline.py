"""`koboshi pipeline`: every stage in its order, in one folder; a killed pipeline is resumed where it was.

A task without faults has three stages: train, gate, evaluate.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from koboshi import config, runs
from koboshi.envs import Env
from koboshi.policies.storage import load_single, policy_meta
from koboshi.specialists.bank import SpecialistBank
from koboshi.specialists.controller import Controller
from koboshi.specialists.routing import DetectorRouter, HealthyRouter
from koboshi.specialists.storage import save_controller
from koboshi.specialists.switching import SwitchCfg
from koboshi.specialists.training import check_divisible, check_network
from koboshi.stages import collect as collecting
from koboshi.stages import detector as detecting
from koboshi.stages import evaluate as evaluating
from koboshi.stages import healthy as walking
from koboshi.stages import specialists as banking
from koboshi.stages import switch as switching
from koboshi.stages.folders import CONTROLLER, Start, held
from koboshi.stages.progress import console
from koboshi.stages.training import check_devices, training_seconds
from koboshi.tasks import TaskCfg
from koboshi.tasks.task import required
from koboshi.vec_env import Policy

SEED_STEP = 100


def seeds(task: TaskCfg, seed: int) -> list[str]:
    """The settings by which a training draws all of its numbers anew; those of seed 1 are the task's own."""
    found = [f"agent.trainer.seed={task.agent.trainer.seed + seed - 1}"]
    if task.specialists is not None:
        found.append(f"specialists.agent.trainer.seed={task.specialists.agent.trainer.seed + seed - 1}")
    if task.detector is not None:
        found.append(f"detector.training.seed={task.detector.training.seed + seed - 1}")
    # Rounds and scenarios count on from these.
    for name, part in (("collect", task.collect), ("switch", task.switch)):
        if part is not None:
            found.append(f"{name}.seed={part.seed + SEED_STEP * (seed - 1)}")
    return found


class Pipeline:
    """One run of all stages under `root/<task>/<name>/`; `stages.json` remembers what is done."""

    def __init__(self, task: TaskCfg, root: Path, name: str, overrides: list[str], load: Path | None = None) -> None:
        """`load`: a checkpoint whose weights the healthy policy's training starts from."""
        self.task, self.overrides, self._root, self._start = task, overrides, root, Start(load)
        self.folder = root / task.name / name
        self._record = self.folder / "stages.json"
        self.done: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Goes through the stages that are not done; gives the evaluation's metrics."""
        self._check()
        with held(self.folder, self.task, self.overrides, {"verb": "pipeline"} | self._start.origin()):
            self.done = runs.read_json(self._record) if self._record.exists() else {}
            return self._run()

    @property
    def _load_words(self) -> list[str]:
        return [] if self._start.load is None else ["--load", str(self._start.load)]

    def _check(self) -> None:
        """What cannot work later is refused now, not after the first training."""
        walking.check_start(self.task, self._start)
        check_devices(self.task.agent.trainer.device, self.task.env.sim.device)
        if self.task.faults is not None:
            settings = required(self.task, "specialists", self.task.specialists)
            check_devices(settings.agent.trainer.device)
            check_divisible(settings, banking.bank_assignment(self.task))
            required(self.task, "collect", self.task.collect)
            check_devices(required(self.task, "detector", self.task.detector).training.device)
            check_network(settings, self.task.agent.network)

    def _run(self) -> dict[str, Any]:
        self._stage("train", self._train)
        if self.task.gate is not None:
            self._stage("gate", self._gate)
        if self.task.faults is not None:
            self._fault_stages()
        self._stage("evaluate", self._evaluate)
        minutes = sum(stage["seconds"] for stage in self.done.values()) / 60
        console.print(f"pipeline {self.task.name}: {minutes:.1f} minutes in all; {self.folder}", soft_wrap=True)
        return runs.read_json(self.folder / "metrics.json")

    def _fault_stages(self) -> None:
        self._stage("collect 1", lambda: self._collect(1))
        self._stage("detector 1", lambda: self._detector(1))
        self._stage("specialists", self._specialists)
        for round_ in range(2, self.task.rounds + 1):
            self._stage(f"collect {round_}", lambda r=round_: self._collect(r))
            self._stage(f"detector {round_}", lambda r=round_: self._detector(r))
        self._stage("controller", self._controller)
        if self.task.switch is not None:
            self._stage("switch", self._switch)

    def _stage(self, name: str, work: Any) -> None:
        """Runs a stage unless it is done, prints its line, and remembers it with its time."""
        if name not in self.done:
            began = time.monotonic()
            figures = work()
            # A stage that trains knows better: its own clock counts across kills.
            self.done[name] = {"seconds": time.monotonic() - began, **figures}
            runs.write_json(self._record, self.done)
        line = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.done[name].items())
        console.print(f"[bold]{name}[/]: {line}", highlight=False, soft_wrap=True)

    @property
    def _healthy(self) -> Path:
        return self.folder / "healthy" / "checkpoints" / runs.FINAL

    @property
    def _result(self) -> Path:
        """What is evaluated: the controller, or where nothing breaks the policy alone."""
        return self._healthy if self.task.faults is None else self.folder / CONTROLLER

    def _train(self) -> dict[str, Any]:
        run = walking.train(self.task, self._root, f"{self.folder.name}/healthy", self.overrides, self._start)
        return {"run": str(run.path.relative_to(self.folder)), "seconds": training_seconds(run)}

    def _gate(self) -> dict[str, Any]:
        gate = required(self.task, "gate", self.task.gate)
        figures = walking.gate(self.task, gate, load_single(self._healthy, Env(replace(self.task.env, num_envs=1)))[0])
        return {k: figures[k] for k in ("survival_mean", "vx_rmse", "vy_rmse", "yaw_rmse", "duty_difference")}

    def _data(self, round_: int) -> Path:
        return self.folder / "data" / f"round-{round_}"

    def _detector_folder(self, round_: int) -> Path:
        return self.folder / "detector" / f"round-{round_}"

    def _collect(self, round_: int) -> dict[str, Any]:
        env = Env(collecting.collect_env_cfg(self.task))
        checkpoint = self._healthy
        controller = Controller(self._policy(env), None, HealthyRouter(len(env.robot.joint_names)))
        if round_ > 1:
            checkpoint = self.folder / "specialists" / banking.BANK
            controller = self._switched(env, round_ - 1)
        folder = collecting.collect(self.task, controller, checkpoint, self._data(round_), round_, env)
        statistics = detecting.inspect([folder], detecting.shares(self.task))
        return {"rows": statistics["rows"], "faults": statistics["faults"]}

    def _policy(self, env: Env) -> Policy:
        return load_single(self._healthy, env)[0].single()

    def _switched(self, env: Env, round_: int) -> Controller:
        """Healthy policy and bank under the detector of a round; all on the environment's device."""
        assignment = banking.bank_assignment(self.task)
        bank = banking.load_bank(self.folder / "specialists", env)
        mirror = env.mirror_map(bank.cfg.actor.groups) if assignment.uses_mirror else None
        model, alarm = detecting.load_for(self.task, self._detector_folder(round_) / detecting.FILE, env.device)
        router = DetectorRouter(model, alarm, assignment, env.robot)
        return Controller(self._policy(env), SpecialistBank(bank, assignment, mirror), router)

    def _detector(self, round_: int) -> dict[str, Any]:
        data = [self._data(r) for r in range(1, round_ + 1)]
        # What the last round's knows of faults it need not learn anew.
        last = self._detector_folder(round_ - 1) / detecting.FILE if round_ > 1 else None
        figures = detecting.train(self.task, data, self._detector_folder(round_), last)
        keys = ("delay_ms_median", "delay_ms_p95", "missed", "false_alarms_per_hour", "macro_f1")
        return {k: figures[k] for k in keys}

    def _specialists(self) -> dict[str, Any]:
        name = f"{self.folder.name}/specialists"
        settings = required(self.task, "specialists", self.task.specialists)
        detector = self._detector_folder(1) / detecting.FILE if settings.detector_share else None
        run = banking.train(self.task, self._healthy, detector, self._root, name, self.overrides)
        return {"bank": str((run.path / banking.BANK).relative_to(self.folder)), "seconds": training_seconds(run)}

    def _controller(self) -> dict[str, Any]:
        env = Env(collecting.collect_env_cfg(self.task))
        healthy, meta = load_single(self._healthy, env)
        bank = banking.load_bank(self.folder / "specialists", env)
        model, alarm = detecting.load_for(
            self.task, self._detector_folder(self.task.rounds) / detecting.FILE, env.device
        )
        assignment = banking.bank_assignment(self.task)
        names = [m.name for m in assignment.members]
        about = policy_meta(env, self.task.name, healthy, names)
        about["bank"] = policy_meta(env, self.task.name, bank, names)
        about |= {"seed": meta["seed"], "commit": runs.git_commit(), "overrides": self.overrides}
        save_controller(self.folder / CONTROLLER, about, healthy, bank, assignment, model, alarm, SwitchCfg())
        return {"controller": CONTROLLER}

    def _switch(self) -> dict[str, Any]:
        table = switching.switch(self.task, self.folder / CONTROLLER, self.folder / CONTROLLER)
        return next(row for row in reversed(table) if row["taken"])

    def _write_card(self, metrics: dict[str, Any]) -> None:
        """`controller.json`: where the controller comes from and what it reached, to ship beside it."""
        figures = {
            name: {k: v for k, v in found.items() if k not in ("confusion", "delays_ms", "switches_ms")}
            for name, found in metrics["controllers"].items()
        }
        card = {
            "command": " ".join(["koboshi", "pipeline", self.task.name, *self._load_words, *self.overrides]),
            "seed": self.task.agent.trainer.seed,
            "commit": runs.git_commit(),
            "sha256": metrics["controller_sha256"],
            "scenario": metrics["scenario"],
            "trained_under": self._trained_under(),
            "loaded": self._start.origin().get("load"),
            "stages": self.done,
            "figures": figures,
        }
        runs.write_json((self.folder / CONTROLLER).with_suffix(".json"), card)

    def _trained_under(self) -> dict[str, Any]:
        """Worlds and faults of the training: what differs between episodes, with its ranges."""
        env = config.to_dict(self.task.env)
        terms = {
            f"{group}.{name}": term
            for group, each in env["observations"].items() if each["noise"]
            for name, term in each["terms"].items() if term is not None
        }  # fmt: skip
        return {
            "events": {name: term for name, term in env["events"].items() if term is not None and term["active"]},
            "action_delay": env["actions"]["delay"],
            "sensor_noise": {name: term["noise"] for name, term in terms.items() if term["noise"]},
            "command": env["command"],
            "faults": None if self.task.faults is None else config.to_dict(self.task.faults),
            "recordings": None if self.task.collect is None else config.to_dict(self.task.collect),
        }

    def _evaluate(self) -> dict[str, Any]:
        metrics = evaluating.evaluate(self.task, self._result, self.folder)
        self._write_card(metrics)
        shown = ("healthy", "oracle", "learned")
        return {name: c["survival_mean"] for name, c in metrics["controllers"].items() if name in shown}
