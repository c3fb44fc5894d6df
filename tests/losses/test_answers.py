"""Nothing under the mask counts, and the losses serve in a training loop of another library."""

import copy
import math

import pytest
import torch
from conftest import make_model
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from npo_kit import losses
from npo_kit.errors import KitError
from npo_kit.losses import Answers, reduce

LOGPS = st.floats(-20, -0.125, width=32)
GARBAGE = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


@st.composite
def masked(draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A mask (B, T) with a token in each row; log-probs with zeros under it; with anything."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    bits = st.lists(st.integers(0, 1), min_size=width, max_size=width).filter(any)
    mask = torch.tensor([draw(bits) for _ in range(rows)])
    size = {"min_size": mask.numel(), "max_size": mask.numel()}
    logps = torch.tensor(draw(st.lists(LOGPS, **size))).reshape(mask.shape)
    garbage = torch.tensor(draw(st.lists(GARBAGE, **size))).reshape(mask.shape)
    return mask, torch.where(mask == 1, logps, 0.0), torch.where(mask == 1, logps, garbage)


OBJECTIVES = {
    "ga": losses.ga,
    "ga, sums": lambda forget: losses.ga(forget, length_normalised=False),
    "npo": losses.npo,
    "dpo": losses.dpo,
    "kto": lambda forget, forget_ref: losses.kto(forget, forget_ref, baseline=0.3),
    "idk": losses.idk,
    "retain_nll": losses.retain_nll,
    "one number": lambda forget: forget.logps.sum().square(),
    "infinite at 0": lambda forget: 1 / forget.logps,
}


@pytest.mark.parametrize("name", OBJECTIVES)
@given(masked())
def test_nothing_under_the_mask_counts(name, drawn):
    """Not in values, gradients and weights: neither numbers nor infinities nor NaN."""
    mask, clean, dirty = drawn
    objective, read = OBJECTIVES[name], losses.roles(OBJECTIVES[name])

    def found(logps):
        leaf, other = logps.clone().requires_grad_(), (logps / 2).requires_grad_()
        policy, ref = (Answers(x, torch.zeros_like(mask), mask) for x in (leaf, other))
        batch = {role: ref if role.endswith("_ref") else policy for role in read}
        value = reduce(objective(**batch), mask)
        grads = torch.autograd.grad(value, (leaf, other), allow_unused=True, materialize_grads=True)
        weights = [losses.gradient_weights(objective, batch)] if "forget" in read else []
        return [value, *grads, *weights]

    for one, same in zip(found(clean), found(dirty), strict=True):
        assert torch.isfinite(one).all()
        assert torch.equal(one, same)
        assert one.shape != mask.shape or not one[mask == 0].any()


def test_numbers_under_the_mask_by_hand():
    """Two tokens of -1 and -2 nats, and one more that no answer has."""
    mask = torch.tensor([[1, 1, 0]])
    leaf = torch.tensor([[-1.0, -2.0, -7.0]], requires_grad=True)
    answers = Answers(leaf, torch.zeros_like(mask), mask)
    assert answers.logps.tolist() == [[-1, -2, 0]]
    assert losses.sequence_logps(answers).tolist() == [-3]
    assert reduce(losses.ga(answers), mask).item() == -1.5
    assert losses.total(torch.tensor([[1.0, 2.0, math.nan]]), mask).item() == 3
    (slope,) = torch.autograd.grad(losses.sequence_logps(answers).sum(), leaf)
    assert slope.tolist() == [[1, 1, 0]]


# --- from a model's logits ----------------------------------------------------------------------


def test_answers_from_logits_by_hand():
    """A prompt of one token; odds of 3 to 1 and of 1 to 4 predict the two of the answer."""
    odds = torch.tensor([[3.0, 1.0], [1.0, 4.0], [5.0, 5.0]])
    logits = odds.log()[None].requires_grad_()
    answers = Answers.from_logits(logits, torch.tensor([[-100, 0, 1]]), keep_logits=True)
    assert answers.logps[0].exp().tolist() == pytest.approx([3 / 4, 4 / 5])
    assert answers.labels.tolist() == [[0, 1]]
    assert answers.mask.tolist() == [[1, 1]]
    assert torch.equal(answers.logits, logits[0, :2])
    (slope,) = torch.autograd.grad(answers.logps.sum(), logits)
    assert torch.allclose(slope[0], torch.tensor([[1 / 4, -1 / 4], [-1 / 5, 1 / 5], [0, 0]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_answers_from_logits_are_torchs_cross_entropy(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(11, (3, 6), generator=generator)
    labels[0, :2] = labels[1, 4:] = -100  # a prompt; padding
    labels[2, 1:3] = -100  # a turn of a user between two answers
    answers = Answers.from_logits(logits, labels)
    wide = logits.to(torch.float32 if dtype == torch.bfloat16 else dtype)
    expected = -cross_entropy(wide[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    assert answers.logps.dtype == wide.dtype
    assert torch.allclose(answers.logps, expected, rtol=1e-6, atol=0)
    assert torch.equal(answers.mask == 1, labels[:, 1:] != -100)
    assert answers.logits is None
    kept = Answers.from_logits(logits, labels, keep_logits=True).logits
    assert torch.equal(kept, logits[:, :-1][labels[:, 1:] != -100])


def test_logits_that_the_loss_shifted_already_are_refused():
    with pytest.raises(KitError, match=r"\(2, 4, 9\) and labels of shape \(2, 5\): give .*unshift"):
        Answers.from_logits(torch.zeros(2, 4, 9), torch.zeros(2, 5).long())


def labelled_rows(vocabulary: int) -> list[dict]:
    """Four rows to forget, each beside one to retain, as a collator for causal models pads them."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(4):
        row = {}
        for role, length in (("forget", 6 + number), ("retain", 9 - number)):
            ids = torch.randint(2, vocabulary, (10,), generator=generator)
            places = torch.arange(10)
            row[role] = {
                "input_ids": ids.where(places < length, 1),
                "attention_mask": (places < length).long(),
                "labels": ids.where((places >= 3) & (places < length), -100),
            }
        rows.append(row)
    return rows


def stacked(rows: list[dict]) -> dict[str, dict[str, torch.Tensor]]:
    return {
        role: {name: torch.stack([row[role][name] for row in rows]) for name in rows[0][role]}
        for role in rows[0]
    }


def test_losses_inside_a_trainer_of_transformers(tmp_path):
    """Each step's loss is that of cross_entropy and plain gradient descent, without the kit."""
    from transformers import Trainer, TrainingArguments

    def says(model, inputs):
        logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return Answers.from_logits(logits, inputs["labels"])

    class Unlearner(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            forget, retain = says(model, inputs["forget"]), says(model, inputs["retain"])
            with torch.no_grad():
                forget_ref = says(ref, inputs["forget"])
            loss = reduce(losses.npo(forget, forget_ref, beta=0.5), forget.mask)
            return loss + reduce(losses.retain_nll(retain), retain.mask)

    steps, lr = 4, 0.5
    model, rows = make_model(40), labelled_rows(40)
    ref, plain = copy.deepcopy(model), copy.deepcopy(model)
    trainer = Unlearner(
        model,
        TrainingArguments(
            str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=len(rows),
            learning_rate=lr,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.0,
            logging_steps=1,
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
        ),
        data_collator=stacked,
        train_dataset=rows,
    )
    trainer.train()
    got = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    def nll(model, inputs):
        logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        predicted, labels = logits[:, :-1].transpose(1, 2), inputs["labels"][:, 1:]
        return cross_entropy(predicted, labels, ignore_index=-100, reduction="none")

    batch, expected = stacked(rows), []
    for _ in range(steps):
        gained = nll(ref, batch["forget"]).sum(1).detach() - nll(plain, batch["forget"]).sum(1)
        forget_loss = (4 * torch.log1p((0.5 * gained).exp())).mean()
        retain_loss = nll(plain, batch["retain"]).sum() / (batch["retain"]["labels"] >= 0).sum()
        loss = forget_loss + retain_loss
        plain.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter -= lr * parameter.grad
        expected.append(loss.item())
    assert got == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0] - 0.5


def test_several_losses_of_the_same_answers_have_gradients_each():
    """As one compares objectives on one batch, without a word to autograd."""
    leaf = torch.tensor([[-1.0, -2.0, 5.0]], requires_grad=True)
    answers = Answers(leaf, torch.zeros(1, 3).long(), torch.tensor([[1, 1, 0]]))
    for weight in (1.0, 2.0):
        (slope,) = torch.autograd.grad(weight * losses.sequence_logps(answers).sum(), leaf)
        assert slope.tolist() == [[weight, weight, 0]]
