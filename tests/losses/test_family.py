"""NPO's relatives: their weights by autograd, the identities between them, public code's slips."""

import json
import math

import pytest
import torch
from answered import NAMES, answers, batch, gradient, ragged, spoken
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot

from npo_kit import losses
from npo_kit.cli import main
from npo_kit.losses import family, paper
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.listing import facts_table, forget_terms, losses_table, method_records
from npo_kit.losses.methods import METHODS
from npo_kit.losses.objectives import asked

TERMS = forget_terms()


def mean_tokens(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (x * mask).sum() / mask.sum()


# --- one harness: how hard each pushes on a token ------------------------------------------------

WEIGHTS = {
    "ga": lambda x: 1 / x.N,
    "npo": lambda x: 2 * torch.sigmoid(0.1 * x.d) / x.B,
    "dpo": lambda x: 2 * torch.sigmoid(0.1 * (x.d - x.d_alternate)) / x.B,
    "altpo": lambda x: 2 * torch.sigmoid(0.1 * (x.d - x.d_alternate)) / x.B,
    "kto": lambda x: 2 * torch.sigmoid(0.1 * x.d - x.d_alternate.mean()) / x.B,
    "simnpo": lambda x: 2 * torch.sigmoid(2.5 * x.s / x.n) / (x.B * x.n),
    "flat": lambda x: x.p / torch.cosh(x.P) ** 2 / (2 * x.B * x.n),
    "door": lambda x: 2 * torch.sigmoid(0.5 * x.d) / x.B,
    "unlikelihood": lambda x: x.p / (1 - x.p) / x.N,
    "wga": lambda x: x.p / x.N,
    "tnpo": lambda x: 2 * x.p**4 / (x.p**4 + x.p0**4) / x.N,
    "wtnpo": lambda x: 2 * x.p**5.5 / (x.p**4 + x.p0**4) / x.N,
    "satimp": lambda x: x.p**5 * (1 - x.p) ** 0.1 / x.N,
}


class Numbers:
    """What the formulas of the weights are written in."""

    def __init__(self, roles):
        forget, ref = roles["forget"], roles["forget_ref"]
        self.mask = forget.mask.double()
        self.N, self.B = self.mask.sum(), len(self.mask)
        self.n = self.mask.sum(-1, keepdim=True)
        self.p, self.p0 = forget.logps.exp(), ref.logps.exp()
        self.P = (self.p * self.mask).sum(-1, keepdim=True) / self.n
        self.s = forget.logps.sum(-1, keepdim=True)
        self.d = self.s - ref.logps.sum(-1, keepdim=True)
        other = (roles[name].logps.sum(-1, keepdim=True) for name in ("alternate", "alternate_ref"))
        self.d_alternate = next(other) - next(other)


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weight_of_a_token_is_the_closed_form(name):
    """dL/dl_t of the reduced loss, by autograd with the log-probs as leaves."""
    roles = batch(3)
    entry, x = METHODS[name], Numbers(roles)
    means = {k: f(**{r: roles[r] for r in losses.roles(f)}).mean() for k, f in entry.means.items()}
    got = gradient(entry.terms["forget"], roles, "forget", **means)
    expected = WEIGHTS[name](x).expand(x.mask.shape).masked_fill(x.mask == 0, 0)
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-15)


def test_every_loss_of_log_probs_is_in_the_harness():
    """The rest read logits or states, or the refusals alone."""
    rest = {name for name, entry in TERMS.items() if asked(entry.terms["forget"])}
    assert set(WEIGHTS) | rest | {"idk"} == set(TERMS)


def test_the_weight_of_retain_answers_with_ap():
    """Minus sigmoid(-b margin)/B on the answer, plus that on the refusal."""
    roles = batch(4)
    s, other = (roles[name].logps.sum(-1) for name in ("retain", "retain_alternate"))
    weight = (torch.sigmoid(-0.1 * (s - other)) / len(s))[:, None]
    for role, sign in (("retain", -1), ("retain_alternate", 1)):
        got = gradient(family.ap, roles, role)
        assert torch.allclose(got, sign * weight * roles[role].mask)


@pytest.mark.parametrize("name", ["wga", "wtnpo", "satimp", "ceu"])
def test_losses_with_constant_parts_have_their_surrogates_gradient(name):
    """Through the logits. The surrogate takes the weights here as numbers; gradcheck holds it."""
    roles = batch(5)
    x, forget = Numbers(roles), roles["forget"]
    weight = WEIGHTS["unlikelihood" if name == "ceu" else name](x).masked_fill(x.mask == 0, 0)

    def surrogate(z):
        return (weight * spoken(forget, z).logps).sum()

    def loss(z):
        here = roles | {"forget": spoken(forget, z)}
        objective = METHODS[name].terms["forget"]
        value = objective(**{r: here[r] for r in losses.roles(objective)})
        return reduce(value, forget.mask)

    z = forget.logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(surrogate, z)
    one, same = (torch.autograd.grad(f(z), z)[0] for f in (loss, surrogate))
    assert torch.allclose(one, same, rtol=1e-9, atol=1e-15)


# --- identities ----------------------------------------------------------------------------------


def test_simnpo_is_npo_of_a_mean_against_a_fixed_reference():
    """Log-prob 0 a token with gamma 0, the uniform distribution with gamma = log V."""
    forget, v = ragged(1), 11
    for gamma, logp in ((0.0, 0.0), (math.log(v), -math.log(v))):
        ref = Answers(torch.full_like(forget.logps, logp), forget.labels, forget.mask)
        got = family.simnpo(forget, beta=0.7, gamma=gamma)
        assert torch.allclose(got, paper.npo(forget, ref, beta=0.7, length_normalised=True))


def test_tnpo_of_answers_of_one_token_is_npo_and_ga_as_beta_goes_to_0():
    one, ref = answers([[-1.0], [-3.0]]), answers([[-2.0], [-0.5]])
    assert torch.allclose(family.tnpo(one, ref, beta=0.3)[:, 0], paper.npo(one, ref, beta=0.3))
    roles = batch(6)
    target = gradient(paper.ga, roles, "forget")
    gaps = [(gradient(family.tnpo, roles, "forget", beta=b) - target).norm() for b in (1e-3, 1e-4)]
    assert (gaps[0] / gaps[1]).item() == pytest.approx(10, rel=0.01)


def test_wtnpo_between_tnpo_and_wga():
    roles = batch(7)
    tnpo = gradient(family.tnpo, roles, "forget", beta=2.0)
    assert torch.allclose(gradient(family.wtnpo, roles, "forget", beta=2.0, alpha=0.0), tnpo)
    wga = gradient(family.wga, roles, "forget", alpha=1.5)
    got = gradient(family.wtnpo, roles, "forget", beta=1e-13, alpha=1.5)
    assert (got - wga).abs().max() < 1e-12


def test_wga_is_ga_and_the_gradient_of_a_bounded_potential():
    roles = batch(8)
    forget = roles["forget"]
    assert torch.equal(family.wga(forget, alpha=0.0), paper.ga(forget))

    def potential(forget, *, alpha):
        return forget.logps.exp() ** alpha / alpha

    for alpha in (0.5, 1.0, 3.0):
        one, same = (gradient(f, roles, "forget", alpha=alpha) for f in (family.wga, potential))
        assert torch.allclose(one, same * forget.mask, rtol=1e-12)


def test_satimp_is_wga_and_has_unlikelihoods_gradient():
    roles = batch(9)
    forget = roles["forget"]
    got = family.satimp(forget, beta1=2.0, beta2=0.0)
    assert torch.allclose(got, family.wga(forget, alpha=2.0), rtol=1e-12)
    one = gradient(family.satimp, roles, "forget", beta1=1.0, beta2=-1.0)
    assert (one - gradient(family.unlikelihood, roles, "forget")).abs().max() < 1e-15


def through_logits(objective, roles, **hyper) -> torch.Tensor:
    """The gradient of a loss of forget answers by their logits."""
    z = roles["forget"].logits.clone().requires_grad_()
    here = roles | {"forget": spoken(roles["forget"], z)}
    values = objective(**{r: here[r] for r in losses.roles(objective)}, **hyper)
    return torch.autograd.grad(reduce(values, roles["forget"].mask), z)[0]


def test_ceu_has_unlikelihoods_gradient_which_is_bounded_in_the_logits():
    roles = batch(10)
    forget = roles["forget"]
    got = through_logits(family.ceu, roles)
    assert (got - through_logits(family.unlikelihood, roles)).abs().max() < 1e-15
    where = forget.mask.bool()
    p = forget.logps[where].exp()
    assert torch.allclose(got.abs().sum(-1), 2 * p / len(p))
    others = forget.logits.masked_fill(one_hot(forget.labels[where], 11).bool(), -math.inf)
    q = others.softmax(-1)
    entropy = -(q * q.clamp(min=1e-300).log()).sum(-1)
    assert torch.allclose(family.ceu(forget)[where], entropy - torch.log1p(-p))


def test_undial_at_the_reference_and_elsewhere():
    roles = batch(11)
    here = roles | {"forget_ref": roles["forget"]}
    assert through_logits(family.undial, here, gamma=0.0).abs().max() < 1e-15
    far = through_logits(family.undial, here, gamma=1e3)
    assert torch.allclose(far, through_logits(family.ceu, here), atol=1e-15)
    ref, forget = roles["forget_ref"], roles["forget"]
    q, p = (log_softmax(part.logits, -1) for part in (ref, forget))
    expected = kl_div(p, q, reduction="none", log_target=True).sum(-1) - (q.exp() * q).sum(-1)
    got = family.undial(forget, ref, gamma=0.0)[forget.mask.bool()]
    assert torch.allclose(got, expected)


def test_me_lies_between_bounds_and_is_0_for_constant_logits():
    forget = ragged(12)
    got, z = family.me(forget)[forget.mask.bool()], forget.logits
    spread = z.max(-1).values - z.mean(-1)
    assert ((spread - math.log(11) <= got) & (got <= spread)).all()
    uniform = torch.full_like(z, 1 / 11)
    assert torch.allclose(got, kl_div(log_softmax(z, -1), uniform, reduction="none").sum(-1))
    flat = Answers(forget.logps, forget.labels, forget.mask, torch.ones_like(z))
    assert family.me(flat).abs().max() < 1e-15


def test_flat_door_and_ap_where_they_are_known():
    forget, ref, alternate = (ragged(seed) for seed in (13, 14, 15))
    assert not family.flat(forget, forget).any()
    assert family.flat(forget, alternate).abs().max() < 0.5
    certain = Answers(torch.zeros_like(alternate.logps), alternate.labels, alternate.mask)
    ref = Answers(ref.logps, forget.labels, forget.mask)
    npo = paper.npo(forget, ref, beta=0.3)
    assert torch.equal(family.door(forget, ref, certain, beta=0.3), npo)
    assert torch.allclose(
        family.ap(forget, forget, retain_beta=0.2), torch.tensor(math.log(2) / 0.2).double()
    )


def test_rmu_steers_to_one_direction_and_keeps_the_reference():
    forget = ragged(16)
    states, where = forget.hidden[0.5], forget.mask.bool()
    got = family.rmu(forget, steering=0.0)[where]
    assert torch.allclose(got, (states**2).mean(-1))
    there = torch.zeros_like(states)
    small = Answers(forget.logps, forget.labels, forget.mask, None, {0.5: there})
    values = 5 * family.rmu(small, steering=3.0)[where]
    assert torch.allclose(values, torch.full_like(values, 9.0), rtol=1e-6)  # |3 u| = 3
    leaf = states.clone().requires_grad_()
    here = Answers(forget.logps, forget.labels, forget.mask, None, {0.5: leaf})
    value = family.retain_states(here, forget).sum()
    assert not value
    assert not torch.autograd.grad(value, leaf)[0].any()


# --- where public code slips ---------------------------------------------------------------------


def test_logits_in_place_of_log_probs_would_change_with_a_constant():
    """As in copies of NPO for MUSE: the label's logit where its log-prob belongs."""
    forget, ref = ragged(20), ragged(21)

    def both(shift):
        z = forget.logits + shift
        chosen = z.gather(1, forget.labels[forget.mask.bool()][:, None])[:, 0]
        raw = torch.zeros_like(forget.logps).masked_scatter(forget.mask.bool(), chosen)
        wrong = Answers(raw, forget.labels, forget.mask)
        own = Answers(ref.logps, forget.labels, forget.mask)
        return [paper.npo(part, own).mean().item() for part in (spoken(forget, z), wrong)]

    (ours, theirs), (same, moved) = both(0.0), both(3.0)
    assert same == pytest.approx(ours, rel=1e-12)
    assert abs(moved - theirs) > 1


def test_a_product_of_b_by_b_1_would_mix_rows_of_rmu():
    """open-unlearning divides sums (B,) by counts (B, 1): all by all. A batch of one hides it."""
    for lengths in ([3, 1], [3]):
        mask = (torch.arange(3) < torch.tensor(lengths)[:, None]).long()
        values = torch.tensor([[1.0, 2.0, 3.0], [7.0, 0.0, 0.0]])[: len(lengths)] * mask
        right = reduce(values, mask).item()
        rows = (values.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)).mean().item()
        theirs = (values.sum(-1) / mask.sum(-1, keepdim=True)).mean().item()
        if len(lengths) == 1:
            assert theirs == rows == right
        else:
            assert right == pytest.approx(13 / 4)
            assert rows == pytest.approx(4.5)
            assert theirs == pytest.approx((6 / 3 + 7 / 3 + 6 / 1 + 7 / 1) / 4)


def test_undial_without_a_mask_would_read_the_prompt_and_lower_a_token():
    """open-unlearning: all positions count, and the label -100 lowers the token V - 100."""
    v, gamma = 120, 10.0
    generator = torch.Generator().manual_seed(0)
    z, z0 = (3 * torch.randn(1, 5, v, generator=generator).double() for _ in range(2))
    labels = torch.tensor([[-100, -100, 7, 9, -100]])
    ours = reduce(
        family.undial(*(Answers.from_logits(x, labels, keep_logits=True) for x in (z, z0))),
        torch.tensor([[0, 1, 1, 0]]),
    ).item()
    shifted, lowered = labels[:, 1:], z0[:, :-1].clone()
    for t, label in enumerate(shifted[0]):
        lowered[0, t, label] -= gamma  # -100 counts from the end
    every = cross_entropy(
        z[:, :-1].transpose(1, 2), lowered.softmax(-1).transpose(1, 2), reduction="none"
    )
    assert every[0, 1:3].mean().item() == pytest.approx(ours, rel=1e-12)
    assert abs(every.mean().item() - ours) > 0.1
    assert lowered[0, 0, v - 100] == z0[0, 0, v - 100] - gamma


def test_a_small_number_in_tnpos_weight_would_kill_small_probabilities():
    """The authors add 1e-5 to the denominator p^b + p0^b, which is far smaller at b = 4."""
    logp = math.log(1e-2)
    here = {"forget": answers([[logp]]), "forget_ref": answers([[logp]])}
    ours = gradient(family.tnpo, here, "forget").item()
    p = 1e-2**4
    assert ours == pytest.approx(1.0)
    assert 2 * p / (2 * p + 1e-5) < 0.01


def test_wga_without_the_detachment_would_raise_likely_tokens_last():
    """The weight would be p^a (1 + a l): negative for p < exp(-1/a)."""

    def attached(forget, *, alpha):
        return (alpha * forget.logps).exp() * forget.logps

    here = {"forget": answers([[-2.0]])}
    assert gradient(family.wga, here, "forget", alpha=1.0).item() == pytest.approx(math.exp(-2))
    theirs = gradient(attached, here, "forget", alpha=1.0).item()
    assert theirs == pytest.approx(-math.exp(-2))


def test_me_by_the_log_of_a_softmax_would_saturate():
    """log(p + 1e-12) stops at -27.6 nats, and so does its gradient."""
    z = torch.tensor([[40.0, 0.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.long)
    here = Answers(torch.zeros(1, 1), torch.zeros_like(mask), mask, z)
    (ours,) = torch.autograd.grad(family.me(here).sum(), z)
    theirs = -(z.softmax(-1) + 1e-12).log().mean() - math.log(2)
    (lost,) = torch.autograd.grad(theirs, z)
    assert ours[0, 1].item() == pytest.approx(-0.5)
    assert abs(lost[0, 1].item()) < 1e-4


def test_the_prompt_would_thin_out_flats_probability():
    """Positions that are masked count as zeros, so that P depends on the prompt's length."""
    forget, other = answers([[math.log(0.8)] * 2]), answers([[math.log(0.2)] * 2])
    assert family.flat(forget, other).item() == pytest.approx((math.tanh(0.8) - math.tanh(0.2)) / 2)
    thinned = (math.tanh(0.8 * 2 / 10) - math.tanh(0.2 * 2 / 10)) / 2  # eight tokens of prompt
    assert thinned < 0.3 * family.flat(forget, other).item()


# --- what the table says of them -----------------------------------------------------------------

NEEDS = {
    "reference": lambda entry: any(role.endswith("_ref") for role in entry.roles),
    "refusals": lambda entry: "alternate" in str(entry.roles) and not entry.alternates,
    "sampled answers": lambda entry: entry.alternates > 0,
    "retain rows": lambda entry: "retain" in entry.roles,
    "logits": lambda entry: any("logits" in asked(f) for f in entry.terms.values()),
    "hidden states": lambda entry: any("hidden" in asked(f) for f in entry.terms.values()),
}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_entry_needs_what_its_functions_read(name):
    entry = METHODS[name]
    assert set(entry.facts.needs) == {need for need, holds in NEEDS.items() if holds(entry)}
    assert entry.retain or (entry.retain_weight == 1)


def value_of(entry, roles, **hyper):
    means = {k: f(**{r: roles[r] for r in losses.roles(f)}).mean() for k, f in entry.means.items()}
    objective = entry.terms["forget"]
    return objective(**{r: roles[r] for r in losses.roles(objective)}, **means)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_an_entry_says_its_level_and_whether_it_is_bounded(name):
    entry, roles = METHODS[name], batch(30)
    assert {2: "token", 1: "row", 0: "batch"}[value_of(entry, roles).ndim] == entry.facts.level
    least = []
    for logp in (-1e-6, -1.0, -1e2, -1e4):
        z = torch.full_like(roles["forget"].logits, logp)
        part = roles["forget"]
        far = Answers(torch.full_like(part.logps, logp), part.labels, part.mask, z, part.hidden)
        least.append(value_of(entry, roles | {"forget": far}).min().item())
    assert (min(least) > -100) is entry.facts.bounded


@pytest.mark.parametrize("name", sorted(set(WEIGHTS) - {"dpo", "altpo", "kto"}))
def test_what_fades_fades(name):
    """The weight of a token with p = e^-30, whose reference is at p = 1/2."""
    roles = batch(31)
    part = roles["forget"]
    far, near = (
        roles
        | {"forget": Answers(torch.full_like(part.logps, logp), part.labels, part.mask)}
        | {"forget_ref": Answers(torch.full_like(part.logps, -0.7), part.labels, part.mask)}
        for logp in (-300.0, -0.7)
    )
    term = METHODS[name].terms["forget"]
    share = gradient(term, far, "forget").max() / gradient(term, near, "forget").max()
    assert (share.item() > 0.99) is (METHODS[name].facts.fades == "nothing")
    assert share.item() < 0.01 or name == "ga"


def test_each_entry_says_all_its_facts():
    for name in NAMES:
        facts = METHODS[name].facts
        assert facts.level in ("token", "row")
        assert facts.bounded is not None
        assert facts.fades
        assert facts.tofu


def test_the_command_prints_the_table(capsys):
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert said == f"{losses_table(TERMS)}\n\n{facts_table()}\n"
    assert "| `simnpo` | (2/β) mean softplus(β (s/n + γ)) |" in said
    assert main(["methods", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read == json.loads(json.dumps(method_records()))
    assert [record["name"] for record in read] == list(METHODS)
    (rmu,) = [record for record in read if record["name"] == "rmu"]
    assert rmu["needs"] == ["hidden states", "reference", "retain rows"]
    assert [setting["name"] for setting in rmu["settings"]] == ["depth", "steering"]
