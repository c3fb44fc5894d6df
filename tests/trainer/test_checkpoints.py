"""Checkpoints: all that a step changes comes back to the bit, and nothing else is taken for one."""

import random
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file
from transformers import get_linear_schedule_with_warmup

from npo_kit.errors import KitError
from npo_kit.trainer import checkpoints
from npo_kit.trainer.checkpoints import (
    Checkpoints,
    Training,
    checkpoint_steps,
    fingerprint_weights,
    read_state,
)
from npo_kit.trainer.config import FinetuneConfig
from npo_kit.trainer.loop import finetune


def a_training(seed=0, steps=3, frozen=(), scaler=None):
    """A small network after some steps of AdamW on random gradients."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3, bias=False))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    scheduler = get_linear_schedule_with_warmup(optimizer, 2, 10)
    training = Training(model, optimizer, scheduler, scaler)
    advance(training, steps)
    return training


def advance(training, steps):
    for _ in range(steps):
        for parameter in training.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape)
        training.optimizer.step()
        training.scheduler.step()


def state_of(training):
    """Everything as bytes and plain values, by torch's own account of it."""
    optimizer = training.optimizer.state_dict()
    tensors = {n: p.detach().numpy().tobytes() for n, p in training.model.named_parameters()}
    for number, state in optimizer["state"].items():
        tensors |= {f"{number} {k}": v.numpy().tobytes() for k, v in state.items()}
    scheduler = dict(training.scheduler.state_dict())
    return tensors, optimizer["param_groups"], scheduler, torch.get_rng_state().tolist()


@pytest.mark.parametrize("part_bytes", [1, 100, 10**9])
def test_all_comes_back_and_goes_on_alike(tmp_path, part_bytes, monkeypatch):
    monkeypatch.setattr(checkpoints, "PART_BYTES", part_bytes)
    training = a_training()
    Checkpoints(tmp_path).save(3, training)
    there = {"weights", "optimizer", "state"}
    files = [path.name for path in (tmp_path / "000003").iterdir()]
    assert {name.partition("-")[0].partition(".")[0] for name in files} == there
    assert len(files) == {1: 3 + 9 + 1, 100: 2 + 4 + 1, 10**9: 3}[part_bytes]
    kept = state_of(training)
    advance(training, 2)
    after = state_of(training)

    other = a_training(seed=1, steps=1)
    Checkpoints(tmp_path, start=3).restore(other)
    assert state_of(other) == kept
    shutil.rmtree(tmp_path / "000003")  # nothing restored may still lie in the files
    advance(other, 2)
    assert state_of(other) == after


def test_the_beginning_is_restored_by_doing_nothing(tmp_path):
    training = a_training()
    before = state_of(training)
    Checkpoints(tmp_path / "none").restore(training)
    assert state_of(training) == before
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_trained_is_kept(tmp_path):
    training = a_training(frozen=("0.weight",))
    Checkpoints(tmp_path).save(3, training)
    assert set(load_file(tmp_path / "000003" / "weights-000.safetensors")) == {"0.bias", "1.weight"}
    assert training.size() == 3 * 4 * (4 + 12)


def test_the_loss_scale_of_fp16_is_kept(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(1))
    scaler.update(2.0)
    training = a_training(scaler=scaler)
    Checkpoints(tmp_path).save(3, training)
    other = a_training(scaler=torch.amp.GradScaler("cpu"))
    Checkpoints(tmp_path, start=3).restore(other)
    assert other.scaler.state_dict() == scaler.state_dict()


def test_the_last_two_are_kept_and_nothing_foreign_is_removed(tmp_path):
    training, kept = a_training(), Checkpoints(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".000002.0123abcd.tmp").mkdir()  # of a process that was killed
    for step in (2, 4, 6, 1_000_000):
        kept.save(step, training)
    assert checkpoint_steps(tmp_path) == [6, 1_000_000]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000006", "1000000", "notes.txt"]
    Checkpoints(tmp_path, start=6).save(8, training)  # the later one was of a future cut off
    assert checkpoint_steps(tmp_path) == [6, 8]
    assert checkpoint_steps(tmp_path / "none") == []


def test_every_file_cut_or_changed_anywhere_is_recognised(tmp_path):
    Checkpoints(tmp_path).save(3, a_training())
    chosen = random.Random(0)
    for path in sorted((tmp_path / "000003").iterdir()):
        data = path.read_bytes()
        for place in {0, len(data) - 2, *chosen.sample(range(len(data)), 20)}:
            flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            for other in (data[:place], flipped):
                path.write_bytes(other)
                with pytest.raises(KitError, match="000003"):
                    read_state(tmp_path / "000003")
        path.unlink()
        with pytest.raises(KitError, match=path.name):
            read_state(tmp_path / "000003")
        path.write_bytes(data)
        assert read_state(tmp_path / "000003").step == 3


def test_a_checkpoint_under_another_name_is_none(tmp_path):
    Checkpoints(tmp_path).save(3, a_training())
    (tmp_path / "000003").rename(tmp_path / "000004")
    with pytest.raises(KitError, match="not as it was written"):
        read_state(tmp_path / "000004")


@pytest.mark.parametrize("frozen", [(), ("0.bias", "1.weight")])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, frozen):
    Checkpoints(tmp_path).save(3, a_training(frozen=("0.weight", *frozen[:1])))
    with pytest.raises(KitError, match="give the run's own"):
        Checkpoints(tmp_path, start=3).restore(a_training(frozen=frozen[1:]))


@pytest.mark.parametrize("fails", ["save_file", "_sha256", "atomic_write"])
def test_a_write_that_fails_leaves_the_one_before(tmp_path, fails, monkeypatch):
    training, kept = a_training(), Checkpoints(tmp_path)
    kept.save(2, training)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, fails, full)
    with pytest.raises(KitError, match=r"000004.* could not be written \(No space left"):
        kept.save(4, training)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["000002"]
    assert read_state(tmp_path / "000002").step == 2


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    training = a_training()
    training.size = lambda: 26.4e9
    with pytest.raises(KitError, match=r"takes 26.4 GB and .* has 10 MB left: make room"):
        Checkpoints(tmp_path / "new").save(1, training)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("every", [0, -1, float("nan")])
def test_senseless_intervals_are_refused(tmp_path, every):
    with pytest.raises(KitError, match="above 0"):
        Checkpoints(tmp_path, every)


def test_fingerprints_tell_models_apart():
    model = make_model(300)
    same, other = make_model(300), make_model(300, seed=1)
    assert fingerprint_weights(model) == fingerprint_weights(same)
    assert len({fingerprint_weights(m) for m in (model, other, make_model(301))}) == 3
    assert fingerprint_weights(model.to(torch.bfloat16)) != fingerprint_weights(same)
    with torch.no_grad():
        same.lm_head.weight[0, 0] += 1
    assert fingerprint_weights(same) != fingerprint_weights(make_model(300))


def test_training_draws_nothing_from_torch(tokenizer, task):
    config = FinetuneConfig(epochs=1, batch_size=4, evaluation=None)
    model = make_model(len(tokenizer))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert list(finetune(model, tokenizer, task.retain, config))
    assert torch.equal(torch.get_rng_state(), before)
