"""What a newcomer gives the public functions by mistake is refused with a sentence."""

import gc
import re
import warnings

import datasets
import pytest
import torch
from conftest import make_model, make_task

import npo_kit
from npo_kit import (
    METHODS,
    EvaluationConfig,
    FinetuneConfig,
    Method,
    PromptFormat,
    Task,
    UnlearnConfig,
    estimate,
    evaluate,
    finetune,
    generate,
    load_model,
    load_task,
    load_tofu,
    summarise,
    unlearn,
)
from npo_kit.errors import KitError
from npo_kit.losses.answers import sequence_logps
from npo_kit.models.loading import context_length
from npo_kit.trainer.events import Step

TASK = make_task()
BRIEF = {"batch_size": 4, "epochs": 1, "prompt": "qa", "evaluation": None}
QUIET = UnlearnConfig(**BRIEF)
bad_rows = Task("x", [{"q": 1}], [], {})
no_lists = Task("x", datasets.Dataset.from_list(TASK.forget), [], {})

WRONG = {
    "a name for a model": (
        lambda m, t: unlearn("pocket", t, TASK),
        "unlearn: model must be a loaded model, it is 'pocket'",
    ),
    "the pair for a model": (lambda m, t: unlearn((m, t), TASK, QUIET), "it is a tuple"),
    "the two swapped": (lambda m, t: unlearn(t, m, TASK), "then give both in this order"),
    "no tokenizer": (
        lambda m, t: unlearn(m, None, TASK),
        "must be the model's tokenizer, it is No",
    ),
    "rows for a task": (
        lambda m, t: unlearn(m, t, TASK.forget),
        r"task must be a Task, it is a list: give own_task\(forget, retain\)",
    ),
    "a name for a task": (lambda m, t: unlearn(m, t, "tofu:forget10"), r"give load_task\(NAME\)"),
    "no task": (lambda m, t: unlearn(m, t, None), "task must be a Task, it is None"),
    "a dict of settings": (
        lambda m, t: unlearn(m, t, TASK, {"lr": 1}),
        "config must be of type UnlearnConfig, it is a dict",
    ),
    "settings of another kind": (
        lambda m, t: unlearn(m, t, TASK, FinetuneConfig()),
        "of type UnlearnConfig, it is a FinetuneConfig",
    ),
    "rows without a question": (
        lambda m, t: unlearn(m, t, bad_rows),
        "the task's forget rows: in row 1 'question' is missing",
    ),
    "a data set in a task": (
        lambda m, t: unlearn(m, t, no_lists),
        r"forget rows must be a list, they are a Dataset: give load_rows",
    ),
    "a task for rows": (lambda m, t: finetune(m, t, TASK), "give its full or its retain rows"),
    "half a row": (
        lambda m, t: finetune(m, t, [{"question": "q"}]),
        "rows: in row 1 'answer' is m",
    ),
    "rows to estimate": (lambda m, t: estimate(m, t, TASK.forget, QUIET), "estimate: task must be"),
    "a task to evaluate by name": (
        lambda m, t: evaluate(m, t, "x"),
        "evaluate: task must be a Task",
    ),
    "a wrong tokenizer to evaluate": (
        lambda m, t: evaluate(m, "t", TASK),
        "evaluate: tokenizer mus",
    ),
    "settings of training to evaluate": (
        lambda m, t: evaluate(m, t, TASK, QUIET),
        "of type EvaluationConfig, it is a UnlearnConfig",
    ),
    "a model to summarise": (
        lambda m, t: summarise(m),
        "takes an Evaluation, not a LlamaForCausalLM",
    ),
    "a model to load": (lambda m, t: load_model(m), "by its name, this is LlamaForCausalLM"),
    "no name to load": (lambda m, t: load_model(""), "by its name, this is ''"),
    "a number for a split": (lambda m, t: load_tofu(10), "unknown TOFU split 10"),
    "a number for a task": (lambda m, t: load_task(10), "unknown task 10"),
    "a method for its name": (
        lambda m, t: UnlearnConfig(method=METHODS["npo"]),
        "method must be a name, it is a Method: METHODS",
    ),
    "a number for a name": (lambda m, t: UnlearnConfig(method=3), "method must be text, it is 3"),
    "a number for a text": (
        lambda m, t: UnlearnConfig(system_prompt=3),
        "system_prompt must be text",
    ),
    "a text for a number": (
        lambda m, t: UnlearnConfig(lr="1e-5"),
        "lr must be a number, it is '1e-5'",
    ),
    "a fraction for a count": (
        lambda m, t: UnlearnConfig(batch_size=4.0),
        "must be a whole number",
    ),
    "a text for a switch": (
        lambda m, t: UnlearnConfig(gradient_checkpointing="no"),
        "gradient_checkpointing must be True or False, it is 'no'",
    ),
    "a switch for an evaluation": (
        lambda m, t: UnlearnConfig(evaluation=True),
        "evaluation must be an EvaluationConfig, or None for none, it is True",
    ),
    "a list of hyper-parameters": (
        lambda m, t: UnlearnConfig(hyper=[1]),
        "hyper must be like {'bet",
    ),
    "one refusal": (
        lambda m, t: UnlearnConfig(method="dpo", refusals="No."),
        "refusals must be a list of texts, it is 'No.'",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_wrong_type_is_one_sentence(case, model, tokenizer):
    call, said = WRONG[case]
    with pytest.raises(KitError, match=said):
        call(model, tokenizer)


# --- methods ------------------------------------------------------------------------------------

MALFORMED = {
    "a number": (lambda: Method(3), "an objective must be a function of answers.*it is 3"),
    "a misspelt role": (
        lambda: Method(lambda forgett: forgett.logps),
        "'forgett', which is no role",
    ),
    "no role": (lambda: Method(lambda *answers: answers), "an objective reads no role"),
    "a hyper-parameter among the roles": (
        lambda: Method(lambda forget, beta=0.1: sequence_logps(forget)),
        r"a hyper-parameter stands after \*",
    ),
    "no objective": (lambda: Method(None), "needs a forget term or a retain term"),
    "a text that is no name": (lambda: Method("nope"), "'nope' names no function"),
    "a module that is absent": (
        lambda: Method("no.such:thing"),
        "'no.such:thing' names no function",
    ),
    "a function that is absent": (
        lambda: Method("npo_kit.losses.paper:nppo"),
        "names no function.*nppo.*write it as module:function",
    ),
    "a text for a weight": (
        lambda: Method(sequence_logps_of_forget, forget_weight="1"),
        "forget_weight must be a number, it is '1'",
    ),
    "a bare function": (lambda: sequence_logps_of_forget, "must be a Method, it is <function"),
    "a float": (lambda: Method(lambda forget: 1.0), "returned a float: return a tensor"),
    "no gradient": (
        lambda: Method(lambda forget: forget.logps.detach()),
        "the loss has no gradient",
    ),
    "another shape": (
        lambda: Method(lambda forget: torch.zeros(3, 3, 3) * forget.logps.sum()),
        r"returned shape \(3, 3, 3\)",
    ),
}


def sequence_logps_of_forget(forget):
    return sequence_logps(forget)


@pytest.mark.parametrize("case", sorted(MALFORMED))
def test_a_malformed_method_is_one_sentence(case, model, tokenizer, monkeypatch):
    make, said = MALFORMED[case]

    def use():
        monkeypatch.setitem(METHODS, "mine", make())
        list(unlearn(model, tokenizer, TASK, UnlearnConfig(method="mine", **BRIEF)))

    with pytest.raises(KitError, match=said):
        use()


def test_a_model_whose_parameters_are_all_frozen_is_refused(model, tokenizer):
    model.requires_grad_(False)
    with pytest.raises(KitError, match=r"parameters are frozen: model.requires_grad_\(True\), or"):
        list(unlearn(model, tokenizer, TASK, QUIET))


# --- what is public, and how it prints ----------------------------------------------------------


def test_public_names_are_all_that_is_listed():
    assert {"Task", "generate", "unlearn", "evaluate"} <= set(npo_kit.__all__)
    assert dir(npo_kit) == sorted(npo_kit.__all__)


def test_an_evaluation_takes_a_tokenizer_or_a_format(model, tokenizer):
    config = EvaluationConfig(max_new_tokens=3)
    prompts = PromptFormat(tokenizer, context=context_length(model))
    assert evaluate(model, tokenizer, TASK, config).rows == (
        evaluate(model, prompts, TASK, config).rows
    )
    texts = generate(model, [prompts.encode_prompt("Who?")], prompts.end_id, 4)
    assert len(texts) == 1


def test_events_print_in_a_line(tokenizer):
    config = UnlearnConfig(**BRIEF | {"evaluation": EvaluationConfig(max_new_tokens=3)})
    first, step, last = unlearn(make_model(len(tokenizer)), tokenizer, TASK, config)
    assert re.fullmatch(
        r"Evaluation\(step 0, epoch 0: 4 forget, 4 retain, 2 real_authors, 2 world_facts rows, "
        r"[\d.]+ s; summarise\(evaluation\) computes its metrics\)",
        repr(first),
    )
    assert repr(last).startswith("Evaluation(step 1, epoch 1: 4 forget")
    parts = [
        "Step(1, epoch 1, loss ",
        "forget 13.86",
        "retain ",
        "gradient norm",
        "lr 1e-05",
        "W 1,",
    ]
    assert all(part in repr(step) for part in parts)
    skipped = Step(2, 0.5, 1.0, {}, 1.0, 1e-5, None, True, 0.1)
    assert repr(skipped).endswith("lr 1e-05, 0.1 s, skipped)")
    assert len(str(summarise(last)).splitlines()) < 20


def test_a_run_that_nobody_takes_says_so(model, tokenizer):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        events = unlearn(model, tokenizer, TASK, QUIET)
        assert [event.step for event in events] == [1]
        assert repr(events) == "<the events of unlearn>"
        closed = finetune(model, tokenizer, TASK.full, FinetuneConfig(**BRIEF))
        closed.close()
        assert list(closed) == []
        del events, closed
        gc.collect()
        assert said == []
        events = unlearn(model, tokenizer, TASK, QUIET)
        assert repr(events) == "<unlearn, not begun: for event in unlearn(...): print(event)>"
        del events
        gc.collect()
    (warned,) = said
    assert str(warned.message).startswith("unlearn(...) has trained nothing: it works while")
