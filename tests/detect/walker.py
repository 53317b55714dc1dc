"""A toy robot: four joints on PD control that swing like a gait, one of which may die in mid-episode."""

import torch

from cards import toy_card
from koboshi.data import Column, DatasetCard, LawCard, Sequences, transition_columns
from koboshi.faults import KINDS

JOINTS = ["left_hip", "left_knee", "right_hip", "right_knee"]
KP, KD, LIMIT, SCALE = 100.0, 3.0, 60.0, 0.5


LAYOUT = [("command", 0, 1)] + [
    (n, 1 + 4 * i, 4) for i, n in enumerate(("joint_pos", "joint_vel", "last_action", "joint_torque"))
]

DEAD, LOCKED = KINDS.index("torque_loss"), KINDS.index("locked")


def servos() -> LawCard:
    """Position servos that stand at 0 for the action 0."""
    return LawCard([KP] * 4, [-KP] * 4, [-KD] * 4, [LIMIT] * 4, [SCALE] * 4, [0.0] * 4, [0.0] * 4)


def make_card(num_envs: int, **changes) -> DatasetCard:
    fields = {
        "num_envs": num_envs,
        "columns": transition_columns(
            {"detector": Column("float32", (17,))},
            Column("float32", (4,)),
            {"severity": Column("float32", (4,)), "kind": Column("int8", (4,))},
        ),
        "layouts": {"detector": LAYOUT},
        "joint_names": JOINTS,
        "faults": {},
        "onset_s": (0.6, 1.6),
        "candidates": JOINTS,
        "law": servos(),
    }
    return toy_card(**fields | changes)


GRADED = {"faults": {"kinds": ["locked", "torque_loss"], "severity": [0.5, 1.0]}}
"""The schedule of a graded recording."""


def simulate(steps: int, envs: int, seed: int, faulty: float = 0.7, graded: bool = False) -> Sequences:
    """Unit-inertia joints under PD control, gravity and noise; torques are those of the last substep.

    Joints die; `graded`: or lose from half of their torque on, or lock.
    """
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape, low=-1.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=g)

    def draw_onset(n):
        onset = torch.randint(30, 80, (n,), generator=g)
        return torch.where(torch.rand(n, generator=g) < faulty, onset, 10_000)

    def draw_grade(n):
        """Whether the fault is a lock, and its severity."""
        if not graded:
            return torch.zeros(n, dtype=torch.bool), torch.ones(n)
        locks = torch.rand(n, generator=g) < 0.5
        return locks, torch.where(locks, 1.0, 0.5 + 0.5 * torch.rand(n, generator=g))

    q, qd, torque = torch.zeros(envs, 4), torch.zeros(envs, 4), torch.zeros(envs, 4)
    phase, speed = uniform(envs, 4, high=3.0), uniform(envs, 1, low=6.0, high=9.0)
    age, length = torch.zeros(envs, dtype=torch.int64), torch.randint(100, 200, (envs,), generator=g)
    onset, joint = draw_onset(envs), torch.randint(4, (envs,), generator=g)
    locks, level = draw_grade(envs)
    action, episode = torch.zeros(envs, 4), torch.arange(envs)
    rows, ends = [], []
    for step in range(steps):
        shown = (age > onset) * level
        dead = torch.zeros(envs, 4).scatter_(1, joint[:, None], shown[:, None])
        lock = torch.zeros(envs, 4, dtype=torch.bool).scatter_(1, joint[:, None], ((age >= onset) & locks)[:, None])
        senses = (
            q + 0.01 * uniform(envs, 4),
            qd + 0.1 * uniform(envs, 4),
            action,
            torque + 0.5 * uniform(envs, 4),
        )
        sort = torch.where(dead > 0, torch.where(locks, LOCKED, DEAD)[:, None], -1).to(torch.int8)
        rows.append((torch.cat((speed, *senses), 1), dead, sort, episode.clone(), age == 0))
        action = torch.sin(speed * 0.02 * step + phase) + 0.1 * uniform(envs, 4)
        lost = (age >= onset) * level * ~locks
        broken = torch.zeros(envs, 4).scatter_(1, joint[:, None], lost[:, None])
        for _ in range(4):
            torque = (KP * (SCALE * action - q) - KD * qd).clamp(-LIMIT, LIMIT) * (1 - broken)
            qd = (qd + 0.005 * (torque - 8 * torch.sin(q) - qd)).clamp(-20, 20) * ~lock
            q = q + 0.005 * qd
        age += 1
        done = age == length
        ends.append(done)
        n = int(done.sum())
        q[done], qd[done], torque[done], action[done] = 0.0, 0.0, 0.0, 0.0
        age[done], length[done] = 0, torch.randint(100, 200, (n,), generator=g)
        onset[done], joint[done] = draw_onset(n), torch.randint(4, (n,), generator=g)
        locks[done], level[done] = draw_grade(n)
        episode[done] = int(episode.max()) + 1 + torch.arange(n)
    obs, severity, kind, episodes, reset = (torch.stack(column) for column in zip(*rows, strict=True))
    ends = torch.stack(ends)
    columns = {"obs.detector": obs, "severity": severity, "kind": kind, "episode": episodes, "reset": reset}
    columns |= {"truncated": ends, "terminated": torch.zeros_like(ends)}
    card = make_card(envs, **({"faults": GRADED} if graded else {}))
    return Sequences(card, columns, torch.zeros(reset.shape, dtype=torch.int8))
