"""Runs on disk: what is written reads back exactly; what is damaged is never read as whole."""

import dataclasses
import errno
import getpass
import gzip
import io
import json
import math
import os
import platform
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import ROOT

from npo_kit.records import evaluations as eval_files
from npo_kit.records import files
from npo_kit.records import provenance as provenance_module
from npo_kit.records.evaluations import Evaluation, read_evaluation, write_evaluation
from npo_kit.records.files import RunError, atomic_write, fingerprint
from npo_kit.records.provenance import provenance
from npo_kit.records.run import RunWriter, read_run, read_runs

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PROVENANCE = {"started": "2025-01-01T00:00:00+00:00"}


def bits(value):
    """A value with every float replaced by its 64 bits, so that == means the same to the bit."""
    if isinstance(value, float):
        return "f", "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return type(value).__name__, value


def start(folder, **changes):
    given = {"kind": "unlearn", "label": "NPO", "method": "npo_rt", "seed": 0}
    given |= {"config": {"beta": 0.1}, "task": {"name": "authors:forget10"}}
    return RunWriter.create(folder, **given | {"provenance": PROVENANCE} | changes)


def an_evaluation(step=0):
    rows = {"forget": [{"index": i, "mean_logp": -0.1 * i, "generation": "é"} for i in range(3)]}
    return Evaluation(rows=rows | {"retain": []}, step=step, epoch=step / 2, protocol="all")


def a_run(folder, status="finished", **changes):
    with start(folder, **changes) as writer:
        writer.evaluation(an_evaluation(0))
        for step in (1, 2):
            writer.step({"step": step, "loss": 0.1 * step})
        writer.evaluation(an_evaluation(2))
        writer.finish(status)
    return folder


def leave_running(folder):
    """A run that was killed: neither finished nor marked as stopped."""
    writer = start(folder)
    writer.step({"step": 1})
    writer.step({"step": 2, "loss": 0.25})
    writer._steps.close()
    return folder


def edit(path, **changes):
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not Ellipsis}))


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


numbers = st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.none())
values = st.recursive(
    st.one_of(numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["float", "nan", "a", "é"]), inner, max_size=2),
    ),
    max_leaves=6,
)
keys = st.text(max_size=6).filter(lambda key: key != "set")
rows = st.lists(st.dictionaries(keys, values, max_size=4), max_size=3)
evaluations = st.builds(
    Evaluation,
    rows=st.dictionaries(
        st.one_of(st.sampled_from(eval_files.EVALUATION_SETS), st.text(max_size=5)),
        rows,
        max_size=4,
    ),
    step=st.integers(0, 10**8),
    epoch=st.floats(),
    protocol=st.sampled_from(["all", "tofu"]),
    max_rows=st.none() | st.integers(1, 400),
    notes=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    seconds=st.none() | st.floats(),
)


class TestRoundTrip:
    @QUICK
    @given(evaluation=evaluations)
    def test_an_evaluation_reads_back_to_the_bit(self, tmp_path, evaluation):
        path = tmp_path / "e.jsonl.gz"
        write_evaluation(path, evaluation)
        back = read_evaluation(path)
        assert bits(dataclasses.asdict(back)) == bits(dataclasses.asdict(evaluation))
        first = path.read_bytes()
        write_evaluation(path, back)
        assert path.read_bytes() == first

    @QUICK
    @given(records=st.lists(st.dictionaries(st.text(max_size=6), values, max_size=4), max_size=4))
    def test_steps_config_and_outcome_read_back_to_the_bit(self, tmp_path, records):
        config = {f"k{i}": record for i, record in enumerate(records)}
        with start(tmp_path / "run", config=config, overwrite=True) as writer:
            for record in records:
                writer.step(record)
            writer.finish("collapsed", collapsed_at=12, records=records)
        run = read_run(tmp_path / "run")
        assert bits(run.steps) == bits(records)
        assert run.truncated == ""
        assert bits(run.config) == bits(config)
        assert bits(run.outcome) == bits({"collapsed_at": 12, "records": records})

    def test_files_are_strict_json(self, tmp_path):
        with start(tmp_path / "r", config={"x": math.nan}) as writer:
            writer.step({"loss": math.inf, "w": -math.inf})
            writer.finish("finished")
        for name in ("run.json", "steps.jsonl"):
            text = (tmp_path / "r" / name).read_text()
            assert json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
        assert json.loads(text) == {"loss": {"float": "inf"}, "w": {"float": "-inf"}}

    def test_a_run_reads_back_whole(self, tmp_path):
        run = read_run(a_run(tmp_path / "run"))
        assert (run.kind, run.label, run.method, run.seed) == ("unlearn", "NPO", "npo_rt", 0)
        assert run.folder == tmp_path / "run"
        assert run.status == "finished"
        assert run.ended
        assert run.task == {"name": "authors:forget10"}
        assert run.provenance == PROVENANCE
        assert run.evaluation_steps() == [0, 2]
        assert list(run.evaluations()) == [an_evaluation(0), an_evaluation(2)]
        assert run.evaluation(2) == an_evaluation(2)

    def test_equal_evaluations_give_equal_bytes(self, tmp_path):
        one = {"retain": [{"a": 1.5, "b": None}], "forget": []}
        two = {"forget": [], "retain": [{"b": None, "a": 1.5}]}
        for name, of_sets in ("one.gz", one), ("another-name.gz", two):
            write_evaluation(tmp_path / name, Evaluation(rows=of_sets))
        packed = (tmp_path / "one.gz").read_bytes()
        assert packed == (tmp_path / "another-name.gz").read_bytes()
        assert packed[3:8] == bytes(5)  # no file name flag, modification time 0

    def test_the_layout_of_an_evaluation(self, tmp_path):
        write_evaluation(tmp_path / "e.gz", an_evaluation(3))
        header, *lines = gzip.decompress((tmp_path / "e.gz").read_bytes()).decode().splitlines()
        header = json.loads(header)
        assert (header["kind"], header["schema"]) == ("evaluation", 1)
        assert header["rows"] == {"forget": 3, "retain": 0}
        assert header["step"] == 3
        (line,) = lines
        block = json.loads(line)
        assert (block["set"], block["count"], block["columns"]["index"]) == ("forget", 3, [0, 1, 2])

    def test_numbers_of_numpy_become_plain(self, tmp_path):
        with start(tmp_path / "r", seed=np.int64(3)) as writer:
            writer.step({"a": np.float32(0.1), "b": np.arange(2), "c": np.float64(0.1)})
            writer.step({"a": np.float32("nan"), "b": np.bool_(True), "c": (1, 2)})
            writer.finish("finished")
        run = read_run(tmp_path / "r")
        assert run.seed == 3
        assert run.steps[0] == {"a": float(np.float32(0.1)), "b": [0, 1], "c": 0.1}
        assert math.isnan(run.steps[1]["a"])
        assert run.steps[1]["b"] is True

    @pytest.mark.parametrize("value", [{1: 2}, Path("x"), {1, 2}, b"x", object()])
    def test_what_json_cannot_hold_is_refused(self, tmp_path, value):
        with start(tmp_path / "r") as writer:
            with pytest.raises(RunError, match=r"a run cannot keep .*: give text, numbers"):
                writer.step({"a": [value]})
            writer.step({"a": 1})
            writer.finish("finished")
        assert read_run(tmp_path / "r").steps == [{"a": 1}]

    def test_a_value_within_itself_is_refused(self):
        value = []
        value.append(value)
        with pytest.raises(RunError, match="contains itself"):
            fingerprint([{"a": value}])

    def test_fingerprint(self):
        one, two = {"question": "a", "answer": "é"}, {"question": "b", "answer": math.nan}
        assert fingerprint([one, two]) == fingerprint([dict(reversed(one.items())), two])
        assert fingerprint([one, two]) != fingerprint([two, one])
        assert fingerprint([one]) != fingerprint([one, one]) != fingerprint([])
        assert fingerprint([{"a": "1"}]) == "00b0d5bf19baf3c6"  # and on every machine


class TestWriter:
    def test_a_running_run_is_readable(self, tmp_path):
        writer = start(tmp_path / "deep" / "run")
        assert writer.folder == tmp_path / "deep" / "run"
        writer.step({"step": 1})
        writer.evaluation(an_evaluation(1))
        run = read_run(writer.folder)
        assert (run.status, run.ended, run.truncated) == ("running", None, "")
        assert run.steps == [{"step": 1}]
        assert run.evaluation_steps() == [1]
        writer.finish("finished")

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (KeyboardInterrupt(), "interrupted"),
            (GeneratorExit(), "interrupted"),
            (MemoryError("out of\nmemory"), "MemoryError: out of"),
            (SystemExit(), "SystemExit"),
            (OSError(f"no {os.path.expanduser('~')}{os.sep}x"), f"OSError: no ~{os.sep}x"),
        ],
    )
    def test_an_exception_stops_the_run_and_goes_on(self, tmp_path, error, reason):
        def unlearn():
            with start(tmp_path / "r") as writer:
                writer.step({"step": 1})
                raise error

        with pytest.raises(type(error)):
            unlearn()
        run = read_run(tmp_path / "r")
        assert (run.status, run.outcome) == ("stopped", {"reason": reason})
        assert run.steps == [{"step": 1}]

    def test_a_closed_generator_stops_the_run(self, tmp_path):
        def events():
            with start(tmp_path / "r"):
                yield 1

        generator = events()
        next(generator)
        generator.close()
        assert read_run(tmp_path / "r").outcome == {"reason": "interrupted"}

    def test_leaving_without_finish_is_not_finishing(self, tmp_path):
        with start(tmp_path / "r"):
            pass
        run = read_run(tmp_path / "r")
        assert (run.status, run.outcome) == ("stopped", {"reason": "left before it was finished"})

    def test_an_exception_after_the_end_changes_nothing(self, tmp_path):
        def unlearn():
            with start(tmp_path / "r") as writer:
                writer.finish("finished")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            unlearn()
        assert read_run(tmp_path / "r").status == "finished"

    def test_nothing_is_written_after_the_end(self, tmp_path):
        writer = start(tmp_path / "r")
        with pytest.raises(RunError, match="does not end as 'done': choose from finished, coll"):
            writer.finish("done")
        writer.finish("finished")
        before = everything(tmp_path)
        for call in (
            lambda: writer.step({}),
            lambda: writer.evaluation(an_evaluation()),
            lambda: writer.finish("stopped"),
        ):
            with pytest.raises(RunError, match="r holds a run that has ended"):
                call()
        assert everything(tmp_path) == before

    def test_an_evaluation_is_never_written_twice(self, tmp_path):
        with start(tmp_path / "r") as writer:
            writer.evaluation(an_evaluation(2))
            with pytest.raises(RunError, match=r"000002\.jsonl\.gz exists already"):
                writer.evaluation(Evaluation(rows={}, step=2))
            writer.finish("finished")
        assert read_run(tmp_path / "r").evaluation(2) == an_evaluation(2)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"kind": "train"}, "has kind 'train': choose from finetune, unlearn, evaluate"),
            ({"label": None}, "has label as NoneType, not str"),
            ({"seed": True}, "has seed as bool, not int or None"),
            ({"config": [1]}, "has config as list, not dict"),
        ],
    )
    def test_create_refuses_a_record_that_could_not_be_read(self, tmp_path, changes, said):
        with pytest.raises(RunError, match=said):
            start(tmp_path / "r", **changes)
        assert not (tmp_path / "r").exists()

    @pytest.mark.parametrize(
        ("evaluation", "said"),
        [
            (Evaluation(rows={}, step=-1), "has a step, row count or note of a wrong kind"),
            (Evaluation(rows={}, notes={"a": 1}), "has a step, row count or note"),
            (Evaluation(rows={}, epoch=None), "has epoch as NoneType, not int or float"),
        ],
    )
    def test_an_evaluation_that_could_not_be_read_is_refused(self, tmp_path, evaluation, said):
        with pytest.raises(RunError, match=said):
            write_evaluation(tmp_path / "e.gz", evaluation)
        assert not list(tmp_path.iterdir())


class TestOverwrite:
    def test_a_folder_with_something_in_it_is_refused(self, tmp_path):
        a_run(tmp_path / "r")
        before = everything(tmp_path)
        with pytest.raises(RunError, match="r is not empty: choose another folder, or --overwrite"):
            start(tmp_path / "r")
        assert everything(tmp_path) == before

    def test_an_old_run_is_replaced_with_all_that_was_its_own(self, tmp_path):
        folder = a_run(tmp_path / "r")
        for name in ("model", "checkpoints"):
            (folder / name / "deep").mkdir(parents=True)
            (folder / name / "deep" / "x").write_text("x")
        (folder / ".run.json.0123abcd.tmp").write_text("{")
        (folder / "evals" / ".000003.jsonl.gz.0123abcd.tmp").write_text("x")
        start(folder, label="new", overwrite=True).finish("finished")
        run = read_run(folder)
        assert (run.label, run.steps, run.evaluation_steps()) == ("new", [], [])
        assert sorted(everything(folder)) == ["run.json", "steps.jsonl"]

    def test_an_empty_folder_and_one_with_leftovers_only_are_fine(self, tmp_path):
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / ".run.json.0123abcd.tmp").write_text("{")
        start(tmp_path / "r").finish("finished")
        assert sorted(everything(tmp_path / "r")) == ["run.json", "steps.jsonl"]

    @pytest.mark.parametrize("name", ["thesis.txt", "evals/notes.txt", "evals/12.jsonl.gz", "a/b"])
    def test_nothing_foreign_is_ever_removed(self, tmp_path, name):
        folder = a_run(tmp_path / "r")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
        before = everything(folder)
        with pytest.raises(RunError, match="not the run's own, so nothing was removed: move it"):
            start(folder, overwrite=True)
        assert everything(folder) == before

    def test_a_link_is_foreign(self, tmp_path):
        folder = a_run(tmp_path / "r")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "x").write_text("mine")
        (folder / "model").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="model is not the run's own"):
            start(folder, overwrite=True)
        assert (tmp_path / "elsewhere" / "x").exists()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}'])
    def test_a_folder_that_is_no_run_is_not_overwritten(self, tmp_path, text):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"run\.json"):
            start(tmp_path, overwrite=True)
        assert (tmp_path / "run.json").read_text() == text

    def test_a_folder_without_run_json_is_not_overwritten(self, tmp_path):
        (tmp_path / "steps.jsonl").write_text("mine")
        with pytest.raises(RunError, match=r"not a run's folder, it has no run\.json"):
            start(tmp_path, overwrite=True)
        assert (tmp_path / "steps.jsonl").read_text() == "mine"

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "r").write_text("mine")
        with pytest.raises(RunError, match="r is not a folder: choose another name"):
            start(tmp_path / "r", overwrite=True)
        with pytest.raises(RunError, match="could not be written"):
            start(tmp_path / "r" / "below")


def failing(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk:
    """Stands in for a file: half of what is written arrives, then the disk is full."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        self.file.write(bytes(data[: len(data) // 2]))
        failing()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class TestFaults:
    @pytest.mark.parametrize("fault", ["replace", "fsync", "write", "interrupt"])
    def test_the_old_file_stays_and_nothing_else(self, tmp_path, monkeypatch, fault):
        path = tmp_path / "file"
        path.write_bytes(b"old")
        expected, said = RunError, "could not be written .No space left on device.: check disk"
        if fault == "write":
            monkeypatch.setattr(files, "open", lambda *a: FullDisk(io.FileIO(*a)), raising=False)
        elif fault == "interrupt":
            expected, said = KeyboardInterrupt, None
            monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(expected))
        else:
            monkeypatch.setattr(os, fault, failing)
        with pytest.raises(expected, match=said):
            atomic_write(path, b"something new")
        assert everything(tmp_path) == {"file": b"old"}

    def test_the_data_is_on_disk_before_it_gets_its_name(self, tmp_path, monkeypatch):
        done, fsync, replace = [], os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd)))
        monkeypatch.setattr(os, "replace", lambda *a: (done.append("replace"), replace(*a)))
        atomic_write(tmp_path / "file", b"new")
        assert done == ["fsync", "replace"]
        assert (tmp_path / "file").read_bytes() == b"new"

    def test_a_killed_write_leaves_nothing_that_reads_as_whole(self, tmp_path, monkeypatch):
        writer = start(tmp_path / "r")
        monkeypatch.setattr(os, "replace", failing)
        monkeypatch.setattr(Path, "unlink", failing)  # as if the process were gone
        with pytest.raises(RunError):
            writer.evaluation(an_evaluation(1))
        assert len(list((tmp_path / "r" / "evals").iterdir())) == 1
        assert read_run(tmp_path / "r").evaluation_steps() == []

    def test_a_full_disk_leaves_the_steps_before_it(self, tmp_path):
        with start(tmp_path / "r") as writer:
            writer.step({"step": 1})
            file = writer._steps
            writer._steps = FullDisk(file)
            with pytest.raises(RunError, match=r"steps\.jsonl could not be written"):
                writer.step({"step": 2})
            writer._steps = file
            writer.step({"step": 3})
            writer.finish("finished")
        run = read_run(tmp_path / "r")
        assert run.steps == [{"step": 1}, {"step": 3}]
        assert run.truncated == ""

    def test_a_short_write_is_continued(self, tmp_path):
        with start(tmp_path / "r") as writer:
            file = writer._steps
            short = SimpleNamespace(write=lambda data: file.write(data[:3]), fileno=file.fileno)
            writer._steps = short
            short.closed = False
            writer.step({"step": 1, "loss": 0.5})
            writer._steps = file
            writer.finish("finished")
        assert read_run(tmp_path / "r").steps == [{"step": 1, "loss": 0.5}]

    def test_a_failing_end_leaves_the_run_running(self, tmp_path, monkeypatch):
        def unlearn():
            with start(tmp_path / "r"):
                monkeypatch.setattr(os, "replace", failing)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as caught:
            unlearn()
        assert "could not be marked as stopped" in caught.value.__notes__[0]
        assert read_run(tmp_path / "r").status == "running"

    def test_a_failing_end_is_told_where_nothing_else_failed(self, tmp_path, monkeypatch):
        def unlearn():
            with start(tmp_path / "r"):
                monkeypatch.setattr(os, "replace", failing)

        with pytest.raises(RunError, match=r"run\.json could not be written"):
            unlearn()

    def test_an_overwrite_that_fails_is_no_whole_run(self, tmp_path, monkeypatch):
        folder = a_run(tmp_path / "r")
        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(RunError, match="could not be written"):
            start(folder, overwrite=True)
        with pytest.raises(RunError, match="is missing: copy the run again"):
            read_run(folder)
        monkeypatch.undo()
        a_run(folder, overwrite=True)
        assert read_run(folder).evaluation_steps() == [0, 2]


class TestDamage:
    def test_run_json_cut_anywhere(self, tmp_path):
        path = a_run(tmp_path / "r") / "run.json"
        whole = path.read_bytes()
        for length in range(len(whole) - 1):  # without the last line end it is whole
            path.write_bytes(whole[:length])
            with pytest.raises(RunError, match=r"run\.json is not a run's JSON"):
                read_run(tmp_path / "r")

    def test_steps_of_a_killed_run_cut_anywhere(self, tmp_path):
        folder = leave_running(tmp_path / "r")
        whole = (folder / "steps.jsonl").read_bytes()
        steps = read_run(folder).steps
        for length in range(len(whole) + 1):
            (folder / "steps.jsonl").write_bytes(whole[:length])
            run = read_run(folder)
            assert run.steps == steps[: whole[:length].count(b"\n")]
            half = length > 0 and whole[length - 1 : length] != b"\n"
            assert ("half-written and was left out" in run.truncated) == half

    def test_steps_of_a_finished_run_cut_anywhere(self, tmp_path):
        folder = a_run(tmp_path / "r")
        whole = (folder / "steps.jsonl").read_bytes()
        for length in range(len(whole)):
            (folder / "steps.jsonl").write_bytes(whole[:length])
            assert "of the 2 steps that were written" in read_run(folder).truncated
        (folder / "steps.jsonl").unlink()
        assert "has 0 of the 2 steps" in read_run(folder).truncated
        (folder / "steps.jsonl").write_bytes(whole * 2)
        with pytest.raises(RunError, match="has 4 lines for 2 steps: copy the run again"):
            read_run(folder)

    @pytest.mark.parametrize("line", [b"", b'{"step": 1', b"[1]", b"\xff", b'{"a": NaN}', b"\0\0"])
    def test_a_corrupt_step_is_named_by_its_line(self, tmp_path, line):
        folder = leave_running(tmp_path / "r")
        first, second, _ = (folder / "steps.jsonl").read_bytes().split(b"\n")
        (folder / "steps.jsonl").write_bytes(b"\n".join([first, line, second, b""]))
        with pytest.raises(RunError, match=r"r/steps\.jsonl, line 2, is not a "):
            read_run(folder)

    def test_an_evaluation_cut_anywhere(self, tmp_path):
        path = tmp_path / "000002.jsonl.gz"
        write_evaluation(path, an_evaluation(2))
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(RunError, match=r"000002\.jsonl\.gz is (cut short|not a whole)"):
                read_evaluation(path)
        path.write_bytes(whole + whole)
        with pytest.raises(RunError, match="has more after its end: copy it again"):
            read_evaluation(path)

    def test_an_evaluation_with_any_byte_changed(self, tmp_path):
        path = tmp_path / "e.gz"
        write_evaluation(path, an_evaluation(2))
        whole = path.read_bytes()
        for place in range(len(whole)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
            if 4 <= place < 10:  # the time and system in gzip's header
                assert read_evaluation(path) == an_evaluation(2)
            else:
                with pytest.raises(RunError, match=re.escape(str(path))):
                    read_evaluation(path)

    @staticmethod
    def repack(path, change):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        path.write_bytes(gzip.compress(b"".join(change(lines))))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda lines: lines[:-1], "other rows than its header counts: copy the file again"),
            (lambda lines: [*lines, lines[-1]], "other rows than its header counts"),
            (
                lambda lines: [*lines, b'{"set": "x", "count": 1, "columns": {}}\n'],
                "line 3, is of no set in the header",
            ),
            (lambda lines: [*lines, b'{"set": []}\n'], "line 3, holds no rows"),
            (lambda lines: [*lines, b'{"set": "forget", "count": 1}\n'], "line 3, holds no rows"),
            (
                lambda lines: [lines[0], lines[1].replace(b'"count": 3', b'"count": 2')],
                "line 2, has columns of other lengths than 2",
            ),
            (lambda lines: [*lines, b"\n"], "line 3, is not a run's JSON"),
            (lambda lines: lines[1:], "the header of .* has no schema version known here"),
            (lambda lines: [], "the header of .* is not a run's JSON"),
            (
                lambda lines: [lines[0].replace(b'"schema": 1', b'"schema": 2')],
                "has schema 2, newer than 1 here: update npo_kit",
            ),
            (
                lambda lines: [lines[0].replace(b'"evaluation"', b'"x"'), *lines[1:]],
                "holds 'x', no evaluation",
            ),
            (lambda lines: [lines[0].replace(b'"step"', b'"s"')], "the header of .* lacks step"),
            (
                lambda lines: [lines[0].replace(b'"epoch": 1.0', b'"epoch": {"float": "1"}')],
                "a float that is neither nan nor inf",
            ),
        ],
    )
    def test_an_evaluation_of_another_content(self, tmp_path, change, said):
        folder = a_run(tmp_path / "r")
        self.repack(folder / "evals" / "000002.jsonl.gz", change)
        with pytest.raises(RunError, match=said):
            read_run(folder).evaluation(2)

    def test_an_evaluation_under_another_name(self, tmp_path):
        folder = a_run(tmp_path / "r")
        evals = folder / "evals"
        (evals / "000007.jsonl.gz").write_bytes((evals / "000002.jsonl.gz").read_bytes())
        with pytest.raises(RunError, match=r"000007\.jsonl\.gz is of step 2: give the file its"):
            read_run(folder).evaluation(7)

    def test_evaluations_missing_foreign_and_left_over(self, tmp_path):
        folder = a_run(tmp_path / "r")
        (folder / "evals" / ".000003.jsonl.gz.0123abcd.tmp").write_bytes(b"x")
        (folder / "evals" / ".DS_Store").write_bytes(b"x")
        run = read_run(folder)
        assert run.evaluation_steps() == [0, 2]
        with pytest.raises(RunError, match="r has no evaluation at step 3: choose from 0, 2"):
            run.evaluation(3)
        for name in ("notes.txt", "12.jsonl.gz", "0000012.jsonl.gz", "000012.jsonl"):
            (folder / "evals" / name).write_bytes(b"x")
            with pytest.raises(RunError, match=f"{name} is no evaluation's file, 000012"):
                read_run(folder)
            (folder / "evals" / name).unlink()
        (folder / "evals" / "000002.jsonl.gz").unlink()
        with pytest.raises(RunError, match=r"evals/000002\.jsonl\.gz is missing: copy the run"):
            read_run(folder)


class TestBadFolders:
    def test_missing_and_foreign_folders(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the path is told as it was given
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        for read in (read_run, read_runs):
            with pytest.raises(
                RunError, match=r"^nowhere does not exist: give a run's folder or a"
            ):
                read("nowhere")
            with pytest.raises(RunError, match=r"^file is not a folder: give a run's folder or a"):
                read(Path("file"))
        with pytest.raises(
            RunError, match=r"^empty is not a run's folder, it has no run.json: giv"
        ):
            read_run("empty")
        with pytest.raises(RunError, match=r"^empty holds no run: give a run's folder"):
            read_runs("empty")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"schema": 2}, "run.json has schema 2, newer than 1 here: update npo_kit"),
            ({"schema": 0}, "has no schema version known here"),
            ({"schema": True}, "has no schema version known here"),
            ({"schema": ...}, "has no schema version known here: give a file npo_kit wrote"),
            ({"label": ..., "seed": ...}, "run.json lacks label, seed: restore it"),
            ({"seed": "0"}, "has seed as str, not int or None: restore it"),
            ({"seed": 1.0}, "has seed as float"),
            ({"task": None}, "has task as NoneType, not dict"),
            ({"kind": "x"}, "has kind 'x': choose from finetune, unlearn, evaluate"),
            ({"status": "x"}, "has status 'x': choose from running, finished, collapsed, stopped"),
            ({"counted": None}, "does not say what was written"),
            ({"counted": -1}, "does not say what was written"),
            ({"evaluated": ["0"]}, "does not say what was written"),
            ({"evaluated": [0, 2, 9]}, "000009.jsonl.gz is missing"),
        ],
    )
    def test_run_json_that_is_not_as_written(self, tmp_path, changes, said):
        edit(a_run(tmp_path / "r") / "run.json", **changes)
        with pytest.raises(RunError, match=said):
            read_run(tmp_path / "r")

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"[1]", "JSON object"),
            (b'"x"', "JSON object"),
            (b"\xff\xfe", "run's JSON"),
            (b'{"a": "\xff"}', "run's JSON .'utf-8' codec"),
            (b"[" * 10**5, "run's JSON"),
            (b"9" * 10**4, "run's JSON"),
            (b'{"a": Infinity}', "Infinity is no JSON number"),
        ],
    )
    def test_run_json_that_is_something_else(self, tmp_path, data, said):
        (tmp_path / "run.json").write_bytes(data)
        with pytest.raises(RunError, match=rf"run\.json is not a .*{said}"):
            read_run(tmp_path)

    @pytest.mark.parametrize("name", ["run.json", "steps.jsonl", "evals/000002.jsonl.gz", "model"])
    def test_links_to_outside_are_refused(self, tmp_path, name):
        path = a_run(tmp_path / "r") / name
        if path.exists():
            path.rename(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
        with pytest.raises(RunError, match=f"{name} links to outside of the run: put the file"):
            read_run(tmp_path / "r")

    def test_links_within_are_fine(self, tmp_path):
        folder = a_run(tmp_path / "r")
        (folder / "last.gz").symlink_to("evals/000002.jsonl.gz")
        (tmp_path / "alias").symlink_to(folder)
        assert read_run(tmp_path / "alias").evaluation_steps() == [0, 2]

    def test_files_that_are_too_large(self, tmp_path, monkeypatch):
        folder = a_run(tmp_path / "r")
        os.truncate(folder / "steps.jsonl", 2 * 10**9 + 1)  # a hole, no bytes on disk
        with pytest.raises(RunError, match=r"steps\.jsonl is larger than 2,000,000,000 bytes"):
            read_run(folder)
        packed = gzip.compress(bytes(5000))
        (folder / "evals" / "000002.jsonl.gz").write_bytes(packed)
        monkeypatch.setattr(files, "MAX_BYTES", 4000)
        with pytest.raises(RunError, match="unpacks to over 4,000 bytes, no record does"):
            read_evaluation(folder / "evals" / "000002.jsonl.gz")

    @pytest.mark.parametrize("name", ["run.json", "steps.jsonl", "evals/000002.jsonl.gz"])
    def test_folders_in_the_place_of_files(self, tmp_path, name):
        path = a_run(tmp_path / "r") / name
        path.unlink()
        path.mkdir()
        with pytest.raises(RunError, match=f"{name} is not a plain file"):
            read_run(tmp_path / "r").evaluation(2)

    def test_a_file_in_the_place_of_evals(self, tmp_path):
        start(tmp_path / "r").finish("finished")
        (tmp_path / "r" / "evals").rmdir()
        assert read_run(tmp_path / "r").evaluation_steps() == []
        (tmp_path / "r" / "evals").write_text("")
        with pytest.raises(RunError, match="evals could not be read"):
            read_run(tmp_path / "r")

    def test_an_evaluation_that_is_not_there(self, tmp_path):
        with pytest.raises(RunError, match=r"e.gz could not be read .No such file or directory."):
            read_evaluation(tmp_path / "e.gz")
        with pytest.raises(RunError, match=r"e.gz could not be written .No such file"):
            write_evaluation(tmp_path / "nowhere" / "e.gz", an_evaluation())


class TestStudies:
    @pytest.fixture
    def study(self, tmp_path):
        for name in ("b", "a", "c"):
            a_run(tmp_path / name, label=name.upper())
        (tmp_path / "notes").mkdir()
        (tmp_path / "readme.txt").write_text("")
        return tmp_path

    def test_a_run_alone(self, study):
        assert [run.label for run in read_runs(study / "b")] == ["B"]

    def test_without_study_json_by_name(self, study):
        assert [run.label for run in read_runs(study)] == ["A", "B", "C"]

    def test_study_json_gives_the_order(self, study):
        record = {"schema": 1, "title": "T", "runs": ["c", "a"]}
        (study / "study.json").write_text(json.dumps(record))
        assert [run.label for run in read_runs(study)] == ["C", "A"]

    @pytest.mark.parametrize(
        "names", [["../a"], [".."], ["."], [""], ["a/b"], ["a\\b"], ["a\0"], ["a", "a"], [1]]
    )
    def test_names_that_are_no_subfolders(self, study, names):
        record = {"schema": 1, "title": "T", "runs": names}
        (study / "study.json").write_text(json.dumps(record))
        with pytest.raises(
            RunError, match=r"study\.json must name each run once, by a subfolder's"
        ):
            read_runs(study)

    @pytest.mark.parametrize(
        ("record", "said"),
        [
            ({"schema": 2, "title": "T", "runs": []}, "update npo_kit"),
            ({"schema": 1, "title": "T"}, "study.json lacks runs"),
            ({"schema": 1, "title": "T", "runs": "a"}, "has runs as str, not list"),
            ({"schema": 1, "title": "T", "runs": []}, "holds no run"),
            ({"schema": 1, "title": "T", "runs": ["d"]}, "d does not exist"),
            ({"schema": 1, "title": "T", "runs": ["notes"]}, "notes is not a run's folder"),
        ],
    )
    def test_study_json_that_is_wrong(self, study, record, said):
        (study / "study.json").write_text(json.dumps(record))
        with pytest.raises(RunError, match=said):
            read_runs(study)

    def test_one_broken_run_is_named(self, study):
        (study / "b" / "run.json").write_text("{")
        with pytest.raises(RunError, match=r"b/run\.json is not a run's JSON"):
            read_runs(study)


class TestProvenance:
    def test_nothing_private_is_in_it(self):
        record = provenance()
        assert json.loads(json.dumps(record)) == record
        assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert record["started"].endswith("+00:00")
        assert record["hardware"]["cores"] >= 1
        text = json.dumps(record).lower()
        for private in {socket.gethostname(), platform.node(), getpass.getuser()} - {"localhost"}:
            assert not re.search(rf"\b{re.escape(private.lower())}\b", text)
        assert "/" not in text.replace(record["hardware"]["cpu"].lower(), "")  # hence no path

    def test_gpus_only_of_an_imported_torch(self, monkeypatch):
        cuda = SimpleNamespace(
            is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda i: f"gpu{i}"
        )
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        assert provenance()["hardware"]["gpus"] == ["gpu0", "gpu1"]
        cuda.is_available = lambda: False
        assert provenance()["hardware"]["gpus"] == []
        monkeypatch.delitem(sys.modules, "torch")
        assert provenance()["hardware"]["gpus"] is None

    def test_git_only_of_the_kits_own_checkout(self, tmp_path, monkeypatch):
        assert provenance_module._git(tmp_path) is None
        (tmp_path / ".git").mkdir()  # not a repository
        assert provenance_module._git(tmp_path) is None
        monkeypatch.setenv("PATH", str(tmp_path))  # no git
        assert provenance_module._git(ROOT) is None

    def test_git_tells_commit_and_changes(self, tmp_path, monkeypatch):
        def git(*words):
            who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
            subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, env=clean)

        clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        if provenance_module._asked("git", "--version") is None:
            pytest.skip("needs git")
        (tmp_path / "npo_kit").mkdir()
        (tmp_path / "npo_kit" / "a.py").write_text("")
        git("init", "-q")
        git("add", ".")
        git("commit", "-q", "--no-verify", "-m", "first")
        monkeypatch.setenv("GIT_DIR", "elsewhere")  # as within a git hook
        first = provenance_module._git(tmp_path)
        assert len(first["commit"]) == 40
        assert first["dirty"] is False
        (tmp_path / "a-run").mkdir()
        assert provenance_module._git(tmp_path) == first
        (tmp_path / "npo_kit" / "b.py").write_text("")
        assert provenance_module._git(tmp_path) == first | {"dirty": True}

    def test_a_run_gets_it_by_default(self, tmp_path):
        start(tmp_path / "r", provenance=None).finish("finished")
        assert read_run(tmp_path / "r").provenance.keys() == provenance().keys()

    def test_neither_reading_nor_provenance_imports_torch(self):
        code = "import sys, npo_kit.records.run, npo_kit.records.provenance as p; p.provenance();"
        code += "print(*sys.modules)"
        root = ROOT
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        assert not loaded & {"torch", "transformers", "accelerate", "pandas", "numpy"}


def test_a_setting_that_is_gone_reads_as_if_never_told_unless_it_said_something_else(tmp_path):
    for value, left in (("fresh", {}), ("fixed", {"retain_pairing": "fixed"})):
        config = {"lr": 1e-5, "retain_pairing": value}
        start(tmp_path / value, config=config).finish("finished")
        assert read_run(tmp_path / value).config == {"lr": 1e-5} | left
