"""One process owns a run while it writes: others are told, its death frees it, nothing is left."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from places import ROOT

from npo_kit.records import folder as folder_module
from npo_kit.records.files import RunError
from npo_kit.records.folder import refuse_unwritable
from npo_kit.records.lock import LOCK, owned, refuse_owned
from npo_kit.records.run import RunWriter, read_run

ABOUT = {"kind": "unlearn", "label": "NPO", "config": {}, "task": {}, "provenance": {}}
OWNER = f"""
import sys
from npo_kit.records.run import RunWriter
with RunWriter.create(sys.argv[1], **{ABOUT}) as writer:
    writer.step({{"step": 1}})
    print("writes", flush=True)
    sys.stdin.readline()
    writer.step({{"step": 2}})
    writer.finish("finished")
"""


def start(folder, **changes):
    return RunWriter.create(folder, **ABOUT | changes)


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def process(code, folder):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def living(tmp_path):
    """A run that another process writes: its folder and the process."""
    owner = process(OWNER, tmp_path / "r")
    assert owner.stdout.readline() == "writes\n"
    yield tmp_path / "r", owner
    owner.kill()
    owner.communicate()


WRITERS = {
    "create": start,
    "overwrite": lambda folder: start(folder, overwrite=True),
    "reopen": lambda folder: RunWriter.reopen(folder, 0),
    "ask": refuse_owned,
    "ask to overwrite": lambda folder: refuse_unwritable(folder, overwrite=True),
    "ask to resume": lambda folder: refuse_unwritable(folder, resume=True),
}


@pytest.mark.slow
def test_a_living_run_is_read_but_not_written(living):
    folder, owner = living
    before = everything(folder)
    said = rf"the run in .*r is being written by another process \(pid {owner.pid}\): wait until"
    for name, write in WRITERS.items():
        with pytest.raises(RunError, match=said):
            write(folder)
        assert everything(folder) == before, name
        assert read_run(folder).steps == [{"step": 1}]
    owner.communicate("\n")
    assert owner.returncode == 0
    run = read_run(folder)
    assert (run.status, run.steps) == ("finished", [{"step": 1}, {"step": 2}])
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_lock_dies_with_its_process(living, overwrite):
    folder, owner = living
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (folder / LOCK).exists()
    assert read_run(folder).steps == [{"step": 1}]
    writer = start(folder, overwrite=True) if overwrite else RunWriter.reopen(folder, 1)
    assert f"pid {os.getpid()}\n".encode() in (folder / LOCK).read_bytes()
    writer.finish("finished")
    assert read_run(folder).steps == ([] if overwrite else [{"step": 1}])
    assert not (folder / LOCK).exists()


def test_a_lock_taken_just_before_its_file_goes_is_none(tmp_path, monkeypatch):
    """A second process has opened the file when the owner removes it; a third makes a new one."""
    flock, first, third = fcntl.flock, ExitStack(), ExitStack()
    first.enter_context(owned(tmp_path))

    def late(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.close()
        third.enter_context(owned(tmp_path))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(RunError, match="another process"), owned(tmp_path):
        pass
    third.close()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_taken_as_soon_as_it_is_free_keeps_its_file(tmp_path, monkeypatch):
    flock, first, second = fcntl.flock, ExitStack(), ExitStack()
    first.enter_context(owned(tmp_path))

    def freed(descriptor, how):
        flock(descriptor, how)
        if how == fcntl.LOCK_UN:
            monkeypatch.setattr(fcntl, "flock", flock)
            second.enter_context(owned(tmp_path))

    monkeypatch.setattr(fcntl, "flock", freed)
    first.close()
    with pytest.raises(RunError, match="another process"), owned(tmp_path):
        pass
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_no_end_of_a_writer_leaves_a_lock(tmp_path):
    start(tmp_path / "finished").finish("finished")
    with ThreadPoolExecutor() as threads:
        threads.submit(start, tmp_path / "made in a thread").result().finish("finished")
    with start(tmp_path / "left"):
        pass
    with pytest.raises(ZeroDivisionError), start(tmp_path / "failed"):
        raise ZeroDivisionError
    with pytest.raises(RunError, match="not empty"):
        start(tmp_path / "failed")
    (tmp_path / "failed" / "steps.jsonl").unlink()
    (tmp_path / "failed" / "steps.jsonl").mkdir()
    with pytest.raises(RunError, match=r"could not be written \(Is a directory\)"):
        RunWriter.reopen(tmp_path / "failed", 0)
    assert not list(tmp_path.rglob(LOCK))


def test_only_a_run_that_was_stopped_keeps_its_checkpoints(tmp_path):
    for status in ("finished", "collapsed", "stopped"):
        writer = start(tmp_path / status)
        (tmp_path / status / "checkpoints" / "000001").mkdir(parents=True)
        writer.finish(status)
        assert (tmp_path / status / "checkpoints").exists() == (status == "stopped")


def test_a_run_that_another_has_written_since_is_not_reopened(tmp_path):
    start(tmp_path).finish("stopped")
    record = folder_module.read_record(tmp_path)
    RunWriter.reopen(tmp_path, 0, seen=record).finish("finished")
    before = everything(tmp_path)
    with pytest.raises(RunError, match=r"another process has just written .*: try again"):
        RunWriter.reopen(tmp_path, 0, seen=record)
    assert everything(tmp_path) == before


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_disk_that_knows_no_locks(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    writer = start(tmp_path)
    with pytest.raises(RunError, match="is being written by another process"):
        start(tmp_path, overwrite=True)
    writer.finish("finished")
    assert sorted(path.name for path in everything(tmp_path)) == ["run.json", "steps.jsonl"]
    start(tmp_path, overwrite=True).finish("finished")


# --- asked before anything is made --------------------------------------------------------------


def test_where_a_run_can_be_written(tmp_path):
    start(tmp_path / "run").finish("stopped")
    (tmp_path / "empty").mkdir()
    (tmp_path / "leftovers").mkdir()
    (tmp_path / "leftovers" / ".run.json.0123abcd.tmp").write_text("{")
    (tmp_path / "leftovers" / LOCK).write_text("")
    before = everything(tmp_path / "run")
    for name in ("new", "new/deep", "empty", "leftovers"):
        for options in ({}, {"overwrite": True}, {"resume": True}):
            refuse_unwritable(tmp_path / name, **options)
    refuse_unwritable(tmp_path / "run", overwrite=True)
    refuse_unwritable(tmp_path / "run", resume=True)
    assert everything(tmp_path / "run") == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("run", {}, "run is not empty: choose another folder, or --overwrite"),
        ("mine", {"resume": True}, "mine is not empty"),
        ("mine", {"overwrite": True}, r"not a run's folder, it has no run\.json"),
        ("run/evals", {"overwrite": True}, r"it has no run\.json"),
        ("mixed", {"overwrite": True}, "thesis.txt is not the run's own"),
        ("broken", {"resume": True}, r"run\.json is not a run's JSON"),
        ("file", {"overwrite": True}, "file is not a folder: choose another name"),
        ("file/below", {}, r"below could not be written \(.*file is not a folder\)"),
        ("link", {}, "link is not a folder"),
    ],
)
def test_where_no_run_can_be_written(tmp_path, name, options, said):
    with start(tmp_path / "run") as writer:
        writer.finish("stopped")
    (tmp_path / "run" / "evals" / "a").write_text("")
    for folder in ("mine", "mixed", "broken"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "thesis.txt").write_text("mine")
    (tmp_path / "mixed" / "run.json").write_bytes((tmp_path / "run" / "run.json").read_bytes())
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(RunError, match=said):
        refuse_unwritable(tmp_path / name, **options)
    if "resume" not in options:
        with pytest.raises(RunError, match=said):
            start(tmp_path / name, **options)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", [".", "new/deep"])
def test_a_folder_without_the_right_to_write(tmp_path, name, monkeypatch):
    """What the system says of rights is replaced: root, who runs some tests, has them all."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != tmp_path.name)
    with pytest.raises(RunError, match=r"could not be written \(no right to write in .*\): check"):
        refuse_unwritable(tmp_path / name)
