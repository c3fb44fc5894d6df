"""The objectives against hand-worked numbers, closed forms, limits with rates, and autograd."""

import math

import pytest
import torch
from answered import NAMES, PAPERS, answers, batch, gradient, ragged, spoken
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import kl_div, log_softmax

from npo_kit import losses
from npo_kit.errors import KitError
from npo_kit.losses.answers import Answers, reduce
from npo_kit.losses.methods import METHODS, methods_of

BETAS = (0.01, 0.1, 0.5, 1.0, 4.5)
# These multiply log-probs by weights, or a distribution, that are constants for the gradient.
DETACHED = ("ceu", "satimp", "wga", "wtnpo")


def hyper(name: str, given_batch=None) -> dict:
    """Statistics that a method's forget term needs beside its hyper-parameters."""
    given_batch = given_batch or batch()
    return {
        keyword: objective(**{role: given_batch[role] for role in losses.roles(objective)}).mean()
        for keyword, objective in METHODS[name].means.items()
    }


def loss(name: str, given_batch, **more):
    method = METHODS[name]
    values = losses.method_values(method, given_batch, **hyper(name, given_batch), **more)
    total = 0.0
    for term, value in values.items():
        role = losses.roles(method.terms[term])[0]
        total = total + getattr(method, f"{term}_weight") * reduce(value, given_batch[role].mask)
    return total


# --- by hand ------------------------------------------------------------------------------------


def test_hand_worked_numbers():
    """Two answers of two and one tokens; log-ratios -1 and +2."""
    forget = answers([[-1.0, -2.0], [-1.0, 0.0]], [[1, 1], [1, 0]])
    ref = answers([[-1.0, -1.0], [-3.0, 0.0]], [[1, 1], [1, 0]])
    assert losses.sequence_logps(forget).tolist() == [-3.0, -1.0]
    assert reduce(losses.ga(forget), forget.mask).item() == pytest.approx(-4 / 3)
    sums = losses.ga(forget, length_normalised=False)
    assert reduce(sums, forget.mask).item() == pytest.approx(-2.0)
    expected = [2 / 0.5 * math.log1p(math.exp(0.5 * d)) for d in (-1.0, 2.0)]
    assert losses.npo(forget, ref, beta=0.5).tolist() == pytest.approx(expected)
    # both alternates gained 1 nat
    alternate, alternate_ref = answers([[-1.0], [-1.0]]), answers([[-2.0], [-2.0]])
    expected = [math.log1p(math.exp(-2.0 * (1.0 - d))) for d in (-1.0, 2.0)]
    assert losses.dpo(forget, ref, alternate, alternate_ref, beta=2.0).tolist() == pytest.approx(
        expected
    )
    expected = [2 / 0.5 * math.log1p(math.exp(0.5 * d - 0.7)) for d in (-1.0, 2.0)]
    assert losses.kto(forget, ref, baseline=0.7, beta=0.5).tolist() == pytest.approx(expected)
    assert losses.idk(alternate).tolist() == [[1.0], [1.0]]


def test_retain_kl_equals_torch_on_the_answer_tokens():
    given_batch = batch()
    policy, ref = given_batch["retain"], given_batch["retain_ref"]
    values = losses.retain_kl(policy, ref)
    expected = kl_div(
        log_softmax(policy.logits, -1),
        log_softmax(ref.logits, -1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    assert torch.equal(values[policy.mask.bool()], expected)
    assert (values[~policy.mask.bool()] == 0).all()
    assert (values >= -1e-12).all()


def test_retain_kl_is_flat_at_the_reference():
    policy = ragged(3)
    logits = policy.logits.clone().requires_grad_(True)
    here = Answers(policy.logps, policy.labels, policy.mask, logits)
    value = losses.retain_kl(here, Answers(policy.logps, policy.labels, policy.mask, policy.logits))
    assert value.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.abs().max() < 1e-12


# --- gradient weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_weights_are_the_closed_forms(beta, seed):
    roles = batch(seed)
    forget, mask = roles["forget"], roles["forget"].mask.double()
    rows = len(mask)
    d = losses.sequence_logps(forget) - losses.sequence_logps(roles["forget_ref"])
    d_w = losses.sequence_logps(roles["alternate"]) - losses.sequence_logps(roles["alternate_ref"])
    sigmoid = torch.sigmoid

    assert torch.allclose(gradient(losses.ga, roles, "forget"), mask / mask.sum())
    sums = gradient(losses.ga, roles, "forget", length_normalised=False)
    assert torch.allclose(sums, mask / rows)
    expected = (2 * sigmoid(beta * d) / rows)[:, None]
    assert torch.allclose(gradient(losses.npo, roles, "forget", beta=beta) * mask, expected * mask)
    dpo = (2 * sigmoid(beta * (d - d_w)) / rows)[:, None]
    got = gradient(losses.dpo, roles, "forget", beta=beta)
    assert torch.allclose(got * mask, dpo * mask)
    got = gradient(losses.dpo, roles, "alternate", beta=beta) * roles["alternate"].mask
    assert torch.allclose(got, -dpo * roles["alternate"].mask)
    expected = (2 * sigmoid(beta * d - 0.3) / rows)[:, None]
    got = gradient(losses.kto, roles, "forget", beta=beta, baseline=0.3)
    assert torch.allclose(got * mask, expected * mask)
    got = gradient(losses.idk, roles, "alternate")
    share = roles["alternate"].mask.double()
    assert torch.allclose(got, -share / share.sum())


@pytest.mark.parametrize("beta", BETAS)
def test_w_is_one_at_the_reference(beta):
    forget = ragged(1)
    roles = {"forget": forget, "forget_ref": forget}
    weights = losses.gradient_weights(losses.npo, roles, beta=beta)
    assert torch.equal(weights, torch.ones(len(weights), dtype=torch.float64))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.sampled_from(BETAS))
def test_gradient_weights_function_is_npo_weight(ratios, beta):
    ref = answers(torch.zeros(len(ratios), 1, dtype=torch.float64))
    forget = answers(torch.tensor(ratios, dtype=torch.float64)[:, None])
    weights = losses.gradient_weights(losses.npo, {"forget": forget, "forget_ref": ref}, beta=beta)
    expected = losses.npo_weight(torch.tensor(ratios), beta)
    assert torch.allclose(weights.float(), expected, atol=1e-6)
    assert ((weights >= 0) & (weights <= 2)).all()


# --- identities ---------------------------------------------------------------------------------


def test_npo_tends_to_the_sequence_sum_at_the_known_rate():
    """Proposition 1: NPO - (2/b) log 2 -> mean d, with error (b/4) mean d^2 + O(b^3)."""
    roles = batch(2)
    d = losses.sequence_logps(roles["forget"]) - losses.sequence_logps(roles["forget_ref"])
    for beta in (0.1, 0.01, 0.001):
        value = losses.npo(roles["forget"], roles["forget_ref"], beta=beta).mean()
        gap = value - 2 / beta * math.log(2) - d.mean()
        predicted = beta / 4 * (d**2).mean()
        fourth_order = beta**3 / 96 * (d**4).mean()  # the next term of softplus's expansion
        assert abs(gap - predicted) <= 1.01 * fourth_order + 1e-10 / beta


def test_npo_gradient_tends_to_ga_with_slope_one_in_beta():
    roles = batch(2)
    target = gradient(losses.ga, roles, "forget", length_normalised=False)
    gaps = [
        (gradient(losses.npo, roles, "forget", beta=beta) - target).norm().item()
        for beta in (1e-2, 1e-3)
    ]
    assert math.log10(gaps[0] / gaps[1]) == pytest.approx(1.0, abs=0.01)


def test_npo_tends_to_a_hinge_for_large_beta():
    roles = batch(4)
    d = losses.sequence_logps(roles["forget"]) - losses.sequence_logps(roles["forget_ref"])
    value = losses.npo(roles["forget"], roles["forget_ref"], beta=1e4)
    assert torch.allclose(value, 2 * d.relu(), atol=2e-4)


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_without_a_winner_is_npo(beta):
    roles = batch(5)
    value = losses.dpo(
        roles["forget"], roles["forget_ref"], roles["alternate"], roles["alternate"], beta=beta
    )
    assert torch.equal(value, losses.npo(roles["forget"], roles["forget_ref"], beta=beta))


@pytest.mark.parametrize("beta", BETAS)
def test_kto_without_a_baseline_is_npo(beta):
    roles = batch(6)
    value = losses.kto(roles["forget"], roles["forget_ref"], baseline=0.0, beta=beta)
    assert torch.equal(value, losses.npo(roles["forget"], roles["forget_ref"], beta=beta))


def test_dpo_of_an_answer_against_itself_is_constant():
    forget, ref = batch(7)["forget"], batch(7)["forget_ref"]
    value = losses.dpo(forget, ref, forget, ref, beta=0.3)
    assert torch.allclose(value, torch.full_like(value, 2 / 0.3 * math.log(2)))


# --- invariances --------------------------------------------------------------------------------


def pad(part: Answers, by: int) -> Answers:
    rows = len(part.mask)
    extra = torch.zeros(rows, by, dtype=torch.long)
    return Answers(
        torch.cat([part.logps, extra.to(part.logps.dtype)], 1),
        torch.cat([part.labels, extra], 1),
        torch.cat([part.mask, extra], 1),
        part.logits,
        part.hidden,
    )


def permute(part: Answers, order: torch.Tensor) -> Answers:
    sizes = part.mask.sum(-1).tolist()
    logits, states = (
        torch.cat([of.split(sizes)[i] for i in order]) for of in (part.logits, part.hidden[0.5])
    )
    return Answers(part.logps[order], part.labels[order], part.mask[order], logits, {0.5: states})


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_permutation_change_nothing(name):
    roles = batch(8)
    value = loss(name, roles)
    padded = {role: pad(part, 3) for role, part in roles.items()}
    assert loss(name, padded).item() == pytest.approx(value.item(), rel=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    permuted = {role: permute(part, order) for role, part in roles.items()}
    assert loss(name, permuted).item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_shifting_all_logits_of_a_token_changes_nothing(name):
    def shifted(part: Answers) -> Answers:
        logits = part.logits + torch.linspace(-5, 5, len(part.logits))[:, None]
        token = log_softmax(logits, -1).gather(1, part.labels[part.mask.bool()][:, None])[:, 0]
        logps = torch.zeros_like(part.logps).masked_scatter(part.mask.bool(), token)
        return Answers(logps, part.labels, part.mask, logits, part.hidden)

    roles = batch(9)
    before = loss(name, {r: shifted(p) if not r.endswith("_ref") else p for r, p in roles.items()})
    assert before.item() == pytest.approx(loss(name, roles).item(), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DETACHED])
def test_gradcheck_through_logits(name):
    """From the logits and states of every role that the method reads to its loss, in float64."""
    roles = batch(10)
    needed = [r for r in METHODS[name].roles if not r.endswith("_ref")]
    statistics = hyper(name, roles)
    method = METHODS[name]

    def value(*given):
        logits, states = given[: len(needed)], given[len(needed) :]
        given_roles = dict(roles)
        for role, z, h in zip(needed, logits, states or [None] * len(needed), strict=True):
            given_roles[role] = spoken(roles[role], z, {} if h is None else {0.5: h})
        terms = losses.method_values(method, given_roles, **statistics)
        return sum(
            reduce(v, given_roles[losses.roles(method.terms[t])[0]].mask) for t, v in terms.items()
        )

    inputs = [roles[r].logits.clone().requires_grad_(True) for r in needed]
    if method.depth is not None:
        inputs += [roles[r].hidden[0.5].clone().requires_grad_(True) for r in needed]
    assert torch.autograd.gradcheck(value, tuple(inputs))


# --- extremes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ratio", [-1e4, 1e4])
@pytest.mark.parametrize("beta", BETAS)
def test_finite_at_extreme_log_ratios(dtype, ratio, beta):
    far = Answers(torch.tensor([[ratio]], dtype=dtype, requires_grad=True), *_token())
    here = Answers(torch.zeros(1, 1, dtype=dtype), *_token())
    for values in (
        losses.npo(far, here, beta=beta),
        losses.dpo(far, here, here, here, beta=beta),
        losses.dpo(here, here, far, here, beta=beta),
        losses.kto(far, here, baseline=0.0, beta=beta),
    ):
        assert torch.isfinite(values).all()
        (slope,) = torch.autograd.grad(values.sum(), far.logps)
        assert torch.isfinite(slope).all()
        assert slope.abs().max() <= 2


def _token():
    return torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)


@settings(max_examples=50)
@given(st.floats(-1e4, 1e4), st.floats(1e-2, 5))
def test_npo_is_positive_and_grows_with_the_log_ratio(d, beta):
    ref = answers(torch.zeros(2, 1, dtype=torch.float64))
    both = losses.npo(answers(torch.tensor([[d], [d + 1.0]]).double()), ref, beta=beta)
    assert 0 <= both[0] <= both[1]


# --- the table ----------------------------------------------------------------------------------


def test_the_papers_comparison_is_there():
    assert set(METHODS) >= set(PAPERS) == set(methods_of("record"))
    for entry in METHODS.values():
        assert entry.equation
        assert entry.paper.startswith("arXiv")


def test_beta_has_one_default():
    defaults = {
        objective.__name__: losses.hyperparameters(objective)["beta"]
        for objective in (losses.npo, losses.dpo, losses.kto)
    }
    assert set(defaults.values()) == {losses.BETA} == {0.1}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_missing_role_is_named(name):
    needed = {r for f in METHODS[name].terms.values() for r in losses.roles(f)}
    for role in needed:
        given_batch = {r: p for r, p in batch().items() if r != role}
        with pytest.raises(KitError, match=f"'{role}'"):
            losses.method_values(METHODS[name], given_batch, **hyper(name))


def test_bad_names_are_answered_with_what_exists():
    with pytest.raises(KitError, match="npo_rt"):
        losses.method("nppo")
    with pytest.raises(KitError, match="beta"):
        losses.method_values(METHODS["npo"], batch(), betta=1.0)


def test_an_objective_of_a_foreign_shape_is_refused():
    with pytest.raises(ValueError, match="return"):
        reduce(torch.zeros(3, 2), torch.ones(4, 5))


# --- what people bring ---------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_weight_of_an_objective_is_the_same_through_logits_as_through_log_probs(share):
    """5 l_t by a part of the gradient through the logits and the rest through the log-probs."""
    logits = torch.randn(5, 7, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    labels = torch.tensor([[0, 1, 2], [3, 4, 0]])
    where = mask.bool()
    chosen = logits.log_softmax(-1).gather(1, labels[where][:, None])[:, 0]
    logps = torch.zeros(2, 3, dtype=torch.float64).masked_scatter(where, chosen)

    @losses.asks_for("logits")
    def objective(forget):
        read = forget.logits.log_softmax(-1).gather(1, forget.labels[where][:, None])[:, 0]
        through = torch.zeros_like(forget.logps).masked_scatter(where, read)
        return 5 * (share * through + (1 - share) * forget.logps)

    answers = losses.Answers(logps, labels, mask, logits)
    weights = losses.gradient_weights(objective, {"forget": answers})
    assert torch.allclose(weights, torch.full((2,), 5.0, dtype=torch.float64), atol=1e-12)


def test_malformed_methods_are_refused_in_a_sentence():
    def typo(forgett):
        return forgett.logps

    def beta_as_a_role(forget, beta=0.1):
        return forget.logps * beta

    def number(forget):
        return 1.0

    for objective, said in (
        (typo, "reads 'forgett', which is no role"),
        (beta_as_a_role, "reads 'beta', which is no role.*stands after"),
        (lambda *answers: answers[0].logps, "reads no role"),
    ):
        with pytest.raises(KitError, match=said):
            losses.Method(objective)
    with pytest.raises(KitError, match="needs a forget term or a retain term"):
        losses.Method(None)
    ones = torch.ones(1, 1)
    with pytest.raises(KitError, match="the forget objective returned a float: return a tensor"):
        losses.method_values(losses.Method(number), {"forget": losses.Answers(ones, ones, ones)})
