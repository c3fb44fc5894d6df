"""The loop against a plain one written here, and what it promises of order, seeds and collapse."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from answered import NAMES
from conftest import make_model
from torch.nn.functional import log_softmax, softplus
from transformers import GPT2Config, GPT2LMHeadModel

from npo_kit import losses
from npo_kit.data.prompts import PromptFormat
from npo_kit.data.tasks import draw_refusals
from npo_kit.errors import KitError
from npo_kit.losses.methods import METHODS, Method
from npo_kit.metrics.evaluation import EvaluationConfig, evaluate
from npo_kit.models.generation import generate
from npo_kit.records.evaluations import Evaluation
from npo_kit.trainer import updates
from npo_kit.trainer.config import FinetuneConfig, UnlearnConfig
from npo_kit.trainer.events import Collapse, Step
from npo_kit.trainer.loop import finetune, unlearn
from npo_kit.trainer.plan import RunPlan, paired_batches, rows_to_read

QUICK = UnlearnConfig(
    epochs=3, batch_size=4, micro_batch_size=4, lr=3e-3, warmup_epochs=0, evaluation=None
)
BRIEF = EvaluationConfig(max_new_tokens=4)


def steps_of(events) -> list[dict]:
    return [asdict(event) | {"seconds": None} for event in events if isinstance(event, Step)]


def weights_of(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- against a plain loop -----------------------------------------------------------------------


def plain_logps(model, prompt_format, row):
    """Token log-probs of one answer from the full logits of one unpadded sequence."""
    encoded = prompt_format.encode(row["question"], row["answer"])
    ids = torch.tensor([encoded.ids])
    logps = log_softmax(model(input_ids=ids).logits[0], -1)
    places = torch.arange(encoded.prompt_length, len(encoded.ids))
    return logps[places - 1, ids[0, places]]


def plain_loss(name, model, reference, prompt_format, forget, refusals, retain, beta):
    """The objective of one batch, row by row, written from the paper's formulas."""
    f = [plain_logps(model, prompt_format, row) for row in forget]
    alternates = [r | {"answer": text} for r, text in zip(forget, refusals, strict=True)]
    w = [plain_logps(model, prompt_format, row) for row in alternates]
    r = [plain_logps(model, prompt_format, row) for row in retain]
    with torch.no_grad():
        f_ref = [plain_logps(reference, prompt_format, row) for row in forget]
        w_ref = [plain_logps(reference, prompt_format, row) for row in alternates]
    d = torch.stack([a.sum() - b.sum() for a, b in zip(f, f_ref, strict=True)])
    d_w = torch.stack([a.sum() - b.sum() for a, b in zip(w, w_ref, strict=True)])
    base, _, suffix = name.partition("_")
    value = {
        "ga": lambda: torch.cat(f).mean(),
        "npo": lambda: 2 / beta * softplus(beta * d).mean(),
        "dpo": lambda: 2 / beta * softplus(-beta * (d_w - d)).mean(),
        "kto": lambda: 2 / beta * softplus(beta * d - d_w.detach().mean()).mean(),
        "idk": lambda: -torch.cat(w).mean(),
    }[base]()
    return value - torch.cat(r).mean() if suffix == "rt" else value


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((n, "adamw") for n in ("ga", "ga_rt", "npo", "npo_rt", "dpo_rt", "kto", "idk_rt")),
        ("npo_rt", "sgd"),
    ],
)
def test_three_steps_equal_a_plain_loop(name, kind, tokenizer, task):
    """Same rows in the same order, one row at a time, live reference, full logits, no padding."""
    rate = {"adamw": QUICK.lr, "sgd": 0.1}[kind]
    config = replace(
        QUICK, method=name, optimizer=kind, lr=rate, warmup_epochs=1, micro_batch_size=3
    )
    model, plain, reference = (make_model(len(tokenizer)).double() for _ in range(3))
    prompt_format = PromptFormat(tokenizer)
    refusals = draw_refusals(len(task.forget), config.seed)
    optimizers = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimizer = optimizers[kind](plain.parameters(), lr=config.lr, weight_decay=0.01)
    schedule = [0.0, 1.0, 0.5]  # one epoch is one step: warm-up from 0, then linear to 0

    plan = paired_batches(
        [len(prompt_format.encode(r["question"], r["answer"]).ids) for r in task.forget],
        [len(prompt_format.encode(r["question"], r["answer"]).ids) for r in task.retain],
        batch_size=4,
        epochs=3,
        seed=config.seed,
    )
    events = steps_of(unlearn(model, tokenizer, task, config))
    for (rows, partners), share, event in zip(plan, schedule, events, strict=True):
        value = plain_loss(
            name,
            plain,
            reference,
            prompt_format,
            [task.forget[i] for i in rows],
            [refusals[i] for i in rows],
            [task.retain[i] for i in partners],
            beta=0.1,
        )
        optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), config.max_grad_norm)
        optimizer.param_groups[0]["lr"] = config.lr * share
        optimizer.step()
        assert event["lr"] == pytest.approx(config.lr * share)
        assert event["loss"] == pytest.approx(value.item(), rel=1e-9, abs=1e-9)
        assert event["grad_norm"] == pytest.approx(norm.item(), rel=1e-6)
    assert torch.allclose(weights_of(model), weights_of(plain), atol=1e-8)
    assert not torch.allclose(weights_of(model), weights_of(reference), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_equals_one_large_batch(name, tokenizer, task):
    records, weights = [], []
    for size in (4, 3, 1):
        model = make_model(len(tokenizer)).double()
        config = replace(QUICK, method=name, micro_batch_size=size)
        records.append(steps_of(unlearn(model, tokenizer, task, config)))
        weights.append(weights_of(model))
    for other in records[1:]:
        for a, b in zip(records[0], other, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-9, abs=1e-9)
            assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-6)
            assert b["terms"] == pytest.approx(a["terms"], rel=1e-9, abs=1e-9)
    for other in weights[1:]:
        assert torch.allclose(weights[0], other, atol=1e-8)


# --- the start ----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
def test_npo_starts_with_weight_one_and_the_known_loss(beta, tokenizer, task):
    config = replace(QUICK, method="npo", hyper={"beta": beta}, micro_batch_size=3)
    first = next(iter(unlearn(make_model(len(tokenizer)), tokenizer, task, config)))
    assert first.loss == pytest.approx(2 / beta * math.log(2), rel=1e-5)
    assert list(first.weights.values()) == pytest.approx([1.0] * 5, abs=1e-4 * max(1, beta))


def test_dropout_is_off_so_the_reference_agrees(tokenizer, task):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, embd_pdrop=0.5
    )
    model = GPT2LMHeadModel(config).train()
    events = steps_of(unlearn(model, tokenizer, task, replace(QUICK, method="npo")))
    assert events[0]["weights"]["min"] == pytest.approx(1.0, abs=1e-5)


def test_retain_kl_starts_at_zero_and_grows(tokenizer, task):
    model = make_model(len(tokenizer))
    events = steps_of(unlearn(model, tokenizer, task, replace(QUICK, method="npo_kl")))
    assert events[0]["terms"]["retain"] == pytest.approx(0.0, abs=1e-6)
    assert events[-1]["terms"]["retain"] > 1e-3


def test_weights_of_the_configuration_weigh_the_terms(tokenizer, task):
    config = replace(QUICK, method="ga_rt", forget_weight=0.25, retain_weight=3.0)
    for event in steps_of(unlearn(make_model(len(tokenizer)), tokenizer, task, config)):
        terms = event["terms"]
        assert event["loss"] == pytest.approx(0.25 * terms["forget"] + 3.0 * terms["retain"])


# --- order and seeds ----------------------------------------------------------------------------


def test_events_come_in_the_promised_order(tokenizer, task):
    """4 forget rows, batches of 3, 4 epochs: 5 steps, epochs end at steps 1, 2, 4 and 5."""
    config = replace(QUICK, epochs=4, batch_size=3, evaluation=BRIEF)
    events = list(unlearn(make_model(len(tokenizer)), tokenizer, task, config))
    assert [e.step if isinstance(e, Step) else f"e{e.step}" for e in events] == [
        "e0", 1, "e1", 2, "e2", 3, 4, "e4", 5, "e5",
    ]  # fmt: skip
    sparse = replace(config, evaluate_every=2)
    events = list(unlearn(make_model(len(tokenizer)), tokenizer, task, sparse))
    assert [e.step for e in events if isinstance(e, Evaluation)] == [0, 2, 5]
    ends = replace(config, evaluate_every=None)
    events = list(unlearn(make_model(len(tokenizer)), tokenizer, task, ends))
    assert [e.step for e in events if isinstance(e, Evaluation)] == [0, 5]
    assert events[-1].epoch == pytest.approx(15 / 4)


def test_one_seed_gives_the_same_records_bit_for_bit(tokenizer, task):
    def run(seed):
        config = replace(QUICK, evaluation=BRIEF, seed=seed, batch_size=2, method="dpo_kl")
        events = list(unlearn(make_model(len(tokenizer)), tokenizer, task, config))
        evaluations = [replace(e, seconds=None) for e in events if isinstance(e, Evaluation)]
        return steps_of(events), evaluations

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_caller_may_stop_at_any_event(tokenizer, task):
    model = make_model(len(tokenizer))
    events = unlearn(model, tokenizer, task, QUICK)
    next(events)
    events.close()
    again = steps_of(unlearn(model, tokenizer, task, QUICK))  # nothing is left behind
    assert len(again) == 3


def test_the_original_judges_the_fluency(tokenizer, task):
    config = replace(QUICK, method="ga", lr=3e-2, epochs=6, evaluation=BRIEF, evaluate_every=None)
    model = make_model(len(tokenizer))
    before, after = [
        e for e in unlearn(model, tokenizer, task, config) if isinstance(e, Evaluation)
    ]
    row = after.rows["retain"][0]
    prompt_format = PromptFormat(tokenizer)
    encoded = prompt_format.encode(row["question"], row["answer"])
    prompt = list(encoded.ids[: encoded.prompt_length])
    said = generate(model, [prompt], prompt_format.end_id, 4)[0]
    assert said
    ids = torch.tensor([prompt + said])
    logps = log_softmax(make_model(len(tokenizer))(input_ids=ids).logits[0], -1)
    places = torch.arange(len(prompt), ids.shape[1])
    expected = logps[places - 1, ids[0, places]].mean().item()
    assert row["fluency"] == pytest.approx(expected, abs=1e-4)
    assert before.rows["retain"][0]["fluency"] is not None


# --- fine-tuning --------------------------------------------------------------------------------


def test_finetuning_learns_the_rows(tokenizer, task):
    model = make_model(len(tokenizer))
    config = FinetuneConfig(epochs=30, batch_size=4, lr=1e-2, warmup_epochs=1, evaluation=BRIEF)
    config = replace(config, evaluate_every=None)
    before, *_, after = finetune(model, tokenizer, task.full, config, task=task)

    def probability(evaluation):
        rows = evaluation.rows["forget"]
        return sum(math.exp(row["mean_logp"]) for row in rows) / len(rows)

    assert probability(before) < 0.1
    assert probability(after) > 0.8
    assert after.rows["forget"][0]["rouge_l_recall"] > 0.2  # of four tokens at most


def test_finetuning_without_a_task_is_not_evaluated(tokenizer, task):
    events = list(
        finetune(
            make_model(len(tokenizer)), tokenizer, task.full, FinetuneConfig(epochs=1, batch_size=6)
        )
    )
    assert [type(event) for event in events] == [Step, Step]


# --- collapse -----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_model(tokenizer, task, monkeypatch):
    calls = []

    def breaking(forget):
        calls.append(1)
        return forget.logps * (1.0 if len(calls) < 5 else math.inf)

    # two calls a step: the values, and their gradient weights
    monkeypatch.setitem(METHODS, "breaking", Method(breaking))
    config = replace(QUICK, method="breaking", epochs=5, evaluation=BRIEF, evaluate_every=None)
    model = make_model(len(tokenizer))
    events = list(unlearn(model, tokenizer, task, config))
    assert [type(e) for e in events] == [Evaluation, Step, Step, Evaluation, Collapse]
    assert events[-1] == Collapse(3, "the loss is not finite")
    assert events[-2].step == 2
    assert torch.isfinite(weights_of(model)).all()


def test_a_weight_that_is_not_finite_ends_the_run(tokenizer, task):
    config = replace(QUICK, lr=1e38, max_grad_norm=math.inf, epochs=4, method="ga")
    model = make_model(len(tokenizer))
    *steps, last = unlearn(model, tokenizer, task, config)
    assert isinstance(last, Collapse)
    assert all(isinstance(event, Step) for event in steps)
    assert 1 <= last.step <= 4


def test_evaluations_between_the_first_and_the_last_take_a_fixed_subset(tokenizer, task):
    config = replace(QUICK, evaluation=BRIEF, intermediate_rows=2)
    events = list(unlearn(make_model(len(tokenizer)), tokenizer, task, config))
    seen = {e.step: e for e in events if isinstance(e, Evaluation)}
    sizes = {step: {n: len(rows) for n, rows in e.rows.items()} for step, e in seen.items()}
    full = {"forget": 4, "retain": 4, "real_authors": 2, "world_facts": 2}
    assert sizes == {0: full, 1: dict.fromkeys(full, 2), 2: dict.fromkeys(full, 2), 3: full}
    assert [e.max_rows for e in seen.values()] == [None, 2, 2, None]
    for step in (1, 2):
        assert [row["index"] for row in seen[step].rows["forget"]] == [0, 1]
    fewer = replace(config, evaluation=replace(BRIEF, max_rows=1))
    events = list(unlearn(make_model(len(tokenizer)), tokenizer, task, fewer))
    assert {e.max_rows for e in events if isinstance(e, Evaluation)} == {1}


def test_a_collapse_ends_with_a_full_evaluation(tokenizer, task, monkeypatch):
    calls = []

    def breaking(forget):
        calls.append(1)
        return forget.logps * (1.0 if len(calls) < 5 else math.inf)

    monkeypatch.setitem(METHODS, "breaking", Method(breaking))
    config = replace(QUICK, method="breaking", epochs=5, evaluation=BRIEF, intermediate_rows=1)
    config = replace(config, evaluate_every=None)
    *_, last, collapse = unlearn(make_model(len(tokenizer)), tokenizer, task, config)
    assert isinstance(collapse, Collapse)
    assert len(last.rows["forget"]) == 4


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "warmup_epochs", "shares"),
    [
        (1, 1, [1.0]),  # the only step is not at rate 0
        (2, 1, [0.0, 1.0]),
        (4, 4, [0.0, 0.5, 1.0, 0.5]),  # warm-up takes half of a run at most
        (4, 1, [0.0, 1.0, 2 / 3, 1 / 3]),
        (3, 0, [1.0, 2 / 3, 1 / 3]),
    ],
)
def test_warm_up_takes_at_most_half_of_a_run(epochs, warmup_epochs, shares, tokenizer, task):
    """An epoch of these four rows is one step. The plan says the rates before the run begins."""
    config = replace(QUICK, epochs=epochs, warmup_epochs=warmup_epochs)
    steps = steps_of(unlearn(make_model(len(tokenizer)), tokenizer, task, config))
    assert [step["lr"] for step in steps] == pytest.approx([config.lr * s for s in shares])
    plan = RunPlan(config.composed, rows_to_read(task, config), PromptFormat(tokenizer), config)
    rates = [plan.rate(number) for number in range(1, plan.steps + 1)]
    assert rates == pytest.approx([step["lr"] for step in steps])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "nppo"}, "npo_rt"),
        ({"lr": 0}, "lr must be above 0, it is 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": math.nan}, "epochs"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"hyper": {"beta": 0}}, "beta must be above 0"),
        ({"hyper": {"gamma": 1}, "method": "npo"}, "gamma.*it takes beta"),
        ({"hyper": {"beta": 1}, "method": "ga"}, "length_normalised"),
        ({"lora_rank": 0}, "lora_rank must be at least 1, it is 0"),
        ({"lora_alpha": 0}, "lora_alpha must be above 0"),
        ({"intermediate_rows": 0}, "intermediate_rows must be at least 1"),
    ],
)
def test_senseless_settings_are_refused(settings, said):
    with pytest.raises(KitError, match=said):
        replace(QUICK, **settings)


def test_rows_that_do_not_fill_a_batch_are_refused(tokenizer, task):
    config = replace(QUICK, batch_size=32)
    with pytest.raises(KitError, match=r"3 epochs of 4 rows do not fill one batch of 32: .* 12 or"):
        next(iter(unlearn(make_model(len(tokenizer)), tokenizer, task, config)))


def test_a_row_longer_than_the_context_is_named_before_anything_runs(tokenizer, task):
    long = {"question": "Who?", "answer": "word " * 300}
    model = make_model(len(tokenizer))
    before = weights_of(model)
    with pytest.raises(KitError, match=r"row 3: .*Who\?.*context holds 256"):
        next(iter(unlearn(model, tokenizer, replace(task, forget=[*task.forget[:2], long]), QUICK)))
    assert torch.equal(before, weights_of(model))


def test_running_out_of_memory_says_what_to_do(tokenizer, task, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(updates.Updates, "_backward", full)
    with pytest.raises(KitError, match=r"in step 1: lower micro_batch_size \(now 4\)"):
        list(unlearn(make_model(len(tokenizer)), tokenizer, task, QUICK))


def test_one_number_for_a_batch_is_refused_under_accumulation(tokenizer, task, monkeypatch):
    def spread(forget):
        return losses.sequence_logps(forget).std()

    monkeypatch.setitem(METHODS, "spread", Method(spread))
    config = replace(QUICK, method="spread")
    assert len(steps_of(unlearn(make_model(len(tokenizer)), tokenizer, task, config))) == 3
    with pytest.raises(KitError, match=r"spread, .* set micro_batch_size to batch_size"):
        list(
            unlearn(
                make_model(len(tokenizer)), tokenizer, task, replace(config, micro_batch_size=2)
            )
        )


def test_a_forget_term_may_read_retain_rows_and_logits(tokenizer, task, monkeypatch):
    """Of its own, without a retain term; its values against those of the term that it repeats."""

    @losses.asks_for("logits")
    def by_logits(forget):
        chosen = forget.labels[forget.mask.bool()][:, None]
        read = forget.logits.log_softmax(-1).gather(1, chosen)[:, 0]
        return torch.zeros_like(forget.logps).masked_scatter(forget.mask.bool(), read)

    def both(forget, retain):
        return losses.sequence_logps(forget) - losses.sequence_logps(retain)

    monkeypatch.setitem(METHODS, "by_logits", Method(by_logits))
    monkeypatch.setitem(METHODS, "both", Method(both))
    runs = {
        name: steps_of(
            unlearn(make_model(len(tokenizer)), tokenizer, task, replace(QUICK, method=name))
        )
        for name in ("ga", "by_logits", "both")
    }
    for ours, theirs in zip(runs["by_logits"], runs["ga"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["weights"]["median"] == pytest.approx(1, rel=1e-4)
    assert runs["both"][-1]["loss"] < runs["both"][0]["loss"]


def test_what_an_objective_asks_for_and_is_not_read_is_refused(tokenizer, task, monkeypatch):
    @losses.asks_for("hidden")
    def inner(forget):
        return forget.logps

    @losses.asks_for("attentions")
    def watching(forget):
        return forget.logps

    for objective, said in ((inner, "hidden states: give .* depth"), (watching, "attentions")):
        monkeypatch.setitem(METHODS, "asking", Method(objective))
        config = replace(QUICK, method="asking")
        with pytest.raises(KitError, match=f"{objective.__name__} asks for {said}"):
            next(iter(unlearn(make_model(len(tokenizer)), tokenizer, task, config)))


def test_the_reference_is_read_as_it_was_whatever_is_asked_of_it(tokenizer, task, monkeypatch):
    """Its logits and states in every step, from a copy or with the adapter off; else log-probs."""
    seen = {}

    @losses.asks_for("logits", "hidden")
    def looking(forget, forget_ref, *, depth=0.5):
        picked = forget_ref.logits.log_softmax(-1)
        chosen = forget_ref.labels[forget_ref.mask.bool()][:, None]
        seen.setdefault("logits", []).append(picked.gather(1, chosen).sum().item())
        seen.setdefault("hidden", []).append(forget_ref.hidden[depth].square().sum().item())
        return forget.logps + 0 * forget.hidden[depth].sum()

    def plain(forget, forget_ref):
        seen.setdefault("logps", []).append(forget_ref.logps.sum().item())
        return forget.logps

    monkeypatch.setitem(METHODS, "looking", Method(looking))
    monkeypatch.setitem(METHODS, "plain", Method(plain))
    for settings in ({}, {"lora_rank": 2}):
        seen.clear()
        for name in ("looking", "plain"):
            config = replace(QUICK, method=name, **settings)
            model = make_model(len(tokenizer)).double()
            before = weights_of(model)
            list(unlearn(model, tokenizer, task, config))
            assert settings or not torch.allclose(before, weights_of(model), atol=1e-3)
        assert seen["logits"] == pytest.approx(seen["logps"][::2], rel=1e-12)  # W reads them again
        assert seen["hidden"] == pytest.approx([seen["hidden"][0]] * len(seen["hidden"]))


@pytest.mark.parametrize(("depth", "layer"), [(0.1, 1), (0.5, 1), (0.9, 2), (1.0, 2)])
def test_hidden_states_are_those_of_a_plain_forward(depth, layer, model, tokenizer, task):
    """After a share of the two layers, where each answer token is predicted; packed or not."""
    from npo_kit.models.forward import can_pack, read_answers

    prompt_format = PromptFormat(tokenizer)
    rows = prompt_format.encode_all(task.forget)
    expected = []
    for row in rows:
        states = model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states[layer][0]
        if layer == 2:  # transformers gives the last after the final norm: take it before
            caught = []
            hook = model.model.norm.register_forward_pre_hook(
                lambda _, i, to=caught: to.append(i[0])
            )
            model(torch.tensor([row.ids]))
            hook.remove()
            states = caught[0][0]
        expected.append(states[row.prompt_length - 1 : len(row.ids) - 1])
    for packed in {False, can_pack(model, rows)}:
        got = read_answers(model, rows, packed=packed, depth=depth).hidden[depth]
        assert torch.allclose(got, torch.cat(expected), atol=1e-5)


def test_on_a_cpu_scores_are_in_the_run_s_precision_and_texts_in_fp32(model, tokenizer, task):
    config = EvaluationConfig(max_new_tokens=6, fluency=False)
    style = PromptFormat(tokenizer, "qa", 256)
    exact, short = (
        evaluate(model, style, task, config, precision=precision).rows["forget"]
        for precision in ("fp32", "bf16")
    )
    for a, b in zip(exact, short, strict=True):
        assert a["generation"] == b["generation"]
        assert a["mean_logp"] != b["mean_logp"] == pytest.approx(a["mean_logp"], abs=0.1)
