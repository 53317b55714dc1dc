"""Actors that estimate: each loss by hand, what each part is taught by, and tiny problems that must be solved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from koboshi.config import from_dict, override, to_dict
from koboshi.errors import KoboshiError
from koboshi.nets.actors import DreamWaqCfg, EstCfg, HimCfg, RmaCfg
from koboshi.nets.actors.base import Actor, ActorCfg
from koboshi.nets.actors.dreamwaq import divergence
from koboshi.nets.actors.him import sinkhorn, swapped_prediction
from koboshi.nets.stack import FlatParameters
from koboshi.policies import NetworkCfg
from koboshi.vec_env import Obs, ObsSpec, Place

K, B = 2, 12


def spec(*terms: tuple[str, int]) -> ObsSpec:
    places, start = [], 0
    for name, width in terms:
        places.append(Place(name, start, width))
        start += width
    return ObsSpec((start,), terms=tuple(places))


SPECS = {
    # Newest first, a history of two steps.
    "policy": spec(("gyro", 3), ("command", 1), ("gyro-1", 3), ("command-1", 1)),
    "critic": spec(("base_lin_vel", 3), ("gyro", 3), ("contact", 2), ("command", 1)),
}
EST = EstCfg(targets=("contact", "base_lin_vel"), encoder_hidden=(8,), hidden=(8,))
HIM = HimCfg(after=("base_lin_vel", "gyro"), latent=4, prototypes=6, encoder_hidden=(8,), hidden=(8,))
DREAM = DreamWaqCfg(after=("gyro",), latent=4, encoder_hidden=(8,), hidden=(8,))
TEACHER = RmaCfg(latent=3, teacher_hidden=(8,), student_hidden=(8,), hidden=(8,))
STUDENT = replace(TEACHER, acts_on="history")
ALL = [EST, HIM, DREAM, TEACHER, STUDENT]


@dataclass
class Rows:
    obs: Obs
    next_obs: Obs = field(default_factory=dict)
    mask: Tensor | None = None


def rows(seed: int = 0, mask: bool = False) -> Rows:
    g = torch.Generator().manual_seed(seed)
    obs, after = ({n: torch.randn(K, B, s.width, generator=g) for n, s in SPECS.items()} for _ in range(2))
    return Rows(obs, after, torch.rand(K, B, generator=g) < 0.6 if mask else None)


def build(cfg: ActorCfg, members: int = K) -> Actor:
    torch.manual_seed(1)
    return cfg.build(members, SPECS, 2)


def act(actor: Actor, obs: Obs) -> Tensor:
    return actor({g: obs[g] for g in actor.groups}, (), torch.zeros(K, B, dtype=torch.bool))[0]


def name(cfg: ActorCfg) -> str:
    return f"{type(cfg).__name__}-{getattr(cfg, 'acts_on', '')}"


@pytest.mark.parametrize("cfg", ALL, ids=name)
def test_the_policys_loss_and_the_actors_own_share_no_parameter(cfg: ActorCfg) -> None:
    actor, batch = build(cfg), rows()
    flat = FlatParameters([actor], last=actor.apart)
    of_policy = flat.gradient(act(actor, batch.obs).square().sum())
    assert of_policy[:, : flat.split].abs().sum() > 0
    assert not of_policy[:, flat.split :].any()
    assert actor.auxiliary_loss is not None
    own = flat.gradient(actor.auxiliary_loss(batch).sum())
    assert not own[:, : flat.split].any()
    # Everything apart is taught.
    assert all(own[:, flat.split :].abs().sum(1) > 0)
    taught = torch.autograd.grad(actor.auxiliary_loss(batch).sum(), FlatParameters(actor.apart)._parameters)
    assert all(g.any() for g in taught)


@pytest.mark.parametrize("cfg", ALL, ids=name)
def test_a_stack_of_estimators_equals_its_members(cfg: ActorCfg) -> None:
    stack, batch = build(cfg), rows(mask=True)
    whole, loss = act(stack, batch.obs), stack.auxiliary_loss
    assert loss is not None
    torch.manual_seed(3)
    together = loss(batch)
    assert together.shape == (K, B)
    for k in range(K):
        one = build(cfg, members=1)
        one.load_state_dict({n: x[k : k + 1] for n, x in stack.state_dict().items()})
        obs, after = ({g: x[k : k + 1] for g, x in each.items()} for each in (batch.obs, batch.next_obs))
        alone = one({g: obs[g] for g in one.groups}, (), torch.zeros(1, B, dtype=torch.bool))[0]
        torch.testing.assert_close(alone[0], whole[k])
        if not isinstance(cfg, DreamWaqCfg):  # which draws
            assert one.auxiliary_loss is not None
            part = one.auxiliary_loss(Rows(obs, after, batch.mask[k : k + 1]))  # type: ignore[index]
            torch.testing.assert_close(part[0], together[k])


@pytest.mark.parametrize("cfg", [EST, HIM, DREAM, STUDENT], ids=name)
def test_the_past_reaches_the_trunk_through_the_estimate_alone(cfg: ActorCfg) -> None:
    actor, batch = build(cfg), rows()
    before = act(actor, batch.obs)
    past = {**batch.obs, "policy": batch.obs["policy"].clone()}
    past["policy"][..., 4:] += 1
    assert not torch.equal(act(actor, past), before)
    for part in actor.apart[:1]:  # the encoder
        for parameter in part.parameters():  # type: ignore[union-attr]
            parameter.data.zero_()
    assert torch.equal(act(actor, past), act(actor, batch.obs))
    now = {**batch.obs, "policy": batch.obs["policy"].clone()}
    now["policy"][..., 3] += 1  # the present command
    assert not torch.equal(act(actor, now), act(actor, batch.obs))


def test_est_by_hand() -> None:
    actor, batch = build(EST), rows()
    guess = actor.estimator(batch.obs["policy"])
    truth = torch.cat((batch.obs["critic"][..., 6:8], batch.obs["critic"][..., 0:3]), dim=-1)
    torch.testing.assert_close(actor.truths(batch), truth)
    torch.testing.assert_close(actor.auxiliary_loss(batch), (guess - truth).square().sum(-1) / 5)


def test_him_by_hand() -> None:
    """The authors' loss, row by row."""
    actor, batch = build(HIM), rows()
    whole = actor.encoder(batch.obs["policy"])
    after = batch.next_obs["critic"]
    source, target = normalize(whole[..., 3:], dim=-1), normalize(actor.target(after[..., :6]), dim=-1)
    unit = normalize(actor.prototypes, dim=-1)
    a, b = (torch.einsum("kbd,kpd->kbp", z, unit) for z in (source, target))
    swap = -0.5 * (sinkhorn(a, None) * log_softmax(b / 3, -1) + sinkhorn(b, None) * log_softmax(a / 3, -1)).mean(-1)
    error = (whole[..., :3] - after[..., :3]).square().mean(-1)
    torch.testing.assert_close(actor.auxiliary_loss(batch), error + swap)
    # It acts on a latent of unit length.
    torch.testing.assert_close(actor.insight(batch.obs)[..., 3:].norm(dim=-1), torch.ones(K, B))


def test_sinkhorn_of_two_rows_and_two_prototypes_by_hand() -> None:
    # exp(score / .05) = [[1, 2], [1, 6]]. Columns to 1: [[.5, .25], [.5, .75]]; rows to 1: [[2/3, 1/3], [.4, .6]].
    scores = 0.05 * torch.tensor([[[1.0, 2.0], [1.0, 6.0]]]).log()
    columns = torch.tensor([[2 / 3, 1 / 3], [0.4, 0.6]])
    for _ in range(2):
        columns = columns / columns.sum(0, keepdim=True)
        columns = columns / columns.sum(1, keepdim=True)
    torch.testing.assert_close(sinkhorn(scores, None)[0], columns)
    # Many rows of the same mind are spread over the prototypes.
    same = torch.tensor([0.3, 0.1, 0.0]).expand(1, 60, 3) + 0.01 * torch.randn(
        1, 60, 3, generator=torch.Generator().manual_seed(0)
    )
    shares = sinkhorn(same, None)
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 60))
    assert shares.mean(1).sub(1 / 3).abs().max() < 0.05


def test_rows_that_do_not_teach_change_no_assignment() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 10, 4, generator=g).mul(0.3).unbind(0)
    mask = torch.ones(1, 10, dtype=torch.bool)
    mask[:, 6:] = False
    few = swapped_prediction(a[:, :6], b[:, :6], None)
    torch.testing.assert_close(swapped_prediction(a, b, mask)[:, :6], few)


def test_dreamwaq_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    actor, batch = build(replace(DREAM, beta=0.5)), rows()
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.ones(shape))
    guess, mean, log_var = actor.encoder(batch.obs["policy"]).split([3, 4, 4], dim=-1)
    decoded = actor.decoder(torch.cat((guess, mean + log_var.exp().sqrt()), dim=-1))
    ahead = (decoded - batch.next_obs["critic"][..., 3:6]).square().mean(-1)
    error = (guess - batch.obs["critic"][..., :3]).square().mean(-1)
    torch.testing.assert_close(actor.auxiliary_loss(batch), error + ahead + 0.5 * divergence(mean, log_var))
    # KL(N(2, 4) ‖ N(0, 1)) = (4 + 4 − 1 − log 4) / 2.
    two, four = torch.tensor([2.0]), torch.tensor([4.0])
    assert divergence(two, four.log()).item() == pytest.approx((7 - four.log().item()) / 2)


def test_rma_by_hand() -> None:
    teacher, student, batch = build(TEACHER), build(STUDENT), rows()
    student.load_state_dict(teacher.state_dict())
    told, guessed = teacher.teacher(batch.obs["critic"]), teacher.student(batch.obs["policy"])
    torch.testing.assert_close(teacher.auxiliary_loss(batch), (told - guessed).square().mean(-1))
    torch.testing.assert_close(student.auxiliary_loss(batch), teacher.auxiliary_loss(batch))
    now = batch.obs["policy"][..., :4]
    torch.testing.assert_close(act(teacher, batch.obs), teacher.trunk(torch.cat((told, now), dim=-1)))
    torch.testing.assert_close(act(student, batch.obs), teacher.trunk(torch.cat((guessed, now), dim=-1)))
    assert TEACHER.groups == ("policy", "critic") and STUDENT.groups == ("policy",)


def test_a_term_that_is_not_there_is_named() -> None:
    with pytest.raises(KoboshiError, match="group 'critic': no observed term 'base_lin_vell'; did you mean 'base_lin"):
        build(replace(EST, targets=("base_lin_vell",)))
    with pytest.raises(KoboshiError, match="senses name 'critic' too"):
        override(NetworkCfg(actor=TEACHER), ["actor.senses=[policy, critic]"])


def test_settings_come_back_from_a_file_and_by_name() -> None:
    for cfg in ALL:
        network = NetworkCfg(actor=cfg)
        assert from_dict(NetworkCfg(), to_dict(network)) == network
    assert override(NetworkCfg(), ["actor.type=HimCfg", "actor.latent=7"]).actor == HimCfg(latent=7)


def test_the_newest_step_wherever_it_lies() -> None:
    assert SPECS["policy"].newest == slice(0, 4)
    oldest_first = spec(("gyro-1", 3), ("command-1", 1), ("gyro", 3), ("command", 1))
    assert oldest_first.newest == slice(4, 8)
    assert ObsSpec((5,)).newest == slice(0, 5)
    assert SPECS["policy"].place("gyro-1") == slice(4, 7)
