"""The capstone of notebook 7: its code runs on the pocket model, a few steps of it."""

import re

import nbformat
import torch

from notebooks import FOLDER
from npo_kit import UnlearnConfig, load_model, load_task, unlearn
from npo_kit.audit import audit
from npo_kit.losses.methods import METHODS
from npo_kit.trainer.config import TrainConfig


def test_its_steps_add_run_and_audit_a_method(capsys, monkeypatch):
    notebook = nbformat.read(FOLDER / "07_attack_it.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "Capstone" in cell.source]
    (code,) = re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
    assert "epochs=10," in code
    for name in ("mine", "mine_rt", "mine_kl"):
        monkeypatch.setitem(METHODS, name, None)  # taken out again after the test
    original, tokenizer = load_model("pocket")
    prompts = TrainConfig().prompt_format(tokenizer, original)
    retained = [load_model("pocket:retained")[0]]
    names = {
        "UnlearnConfig": UnlearnConfig,
        "audit": audit,
        "cards": ("verbatim", "guards"),
        "controls": {"original": original, "retained": retained},
        "load_model": load_model,
        "prompts": prompts,
        "task": load_task("authors:forget10"),
        "tokenizer": tokenizer,
        "unlearn": unlearn,
    }
    exec(code.replace("epochs=10,", "epochs=0.3,"), names)
    said = capsys.readouterr().out
    assert "W after 0, 10 and 30 nats: tensor([1., 1., 0.]" in said
    assert [event.step for event in names["steps"]] == [1, 2, 3]
    assert names["steps"][0].weights["median"] == 1
    assert names["config"].seed == 7
    assert names["case"].verdict.state
    changed = zip(original.parameters(), names["audited"].parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in changed)
