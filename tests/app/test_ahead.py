import pytest
from studies import write_study

from npo_kit.app import ahead
from npo_kit.app.ahead import read_ahead
from npo_kit.app.opening import open_studies


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "study")
    return [tmp_path / "study"]


def opened(folders):
    return open_studies(folders)[0][0]


def test_another_process_reads_what_this_one_would(study, monkeypatch):
    here, there = opened(study), opened(study)
    with read_ahead(there, study):
        monkeypatch.setattr(there, "_read", None)  # not callable: nothing is read here
        assert there.index() == here.index()
        assert [there.texts(n) for n in range(3)] == [here.texts(n) for n in range(3)]
        run = next(iter(here.packed()[1]))
        assert there.scores(run) == here.scores(run)


@pytest.mark.parametrize("command", ["/no/such/python", "false"])
def test_a_study_is_read_here_where_the_other_process_fails(study, monkeypatch, command):
    monkeypatch.setattr(ahead.sys, "executable", command)
    there = opened(study)
    with read_ahead(there, study):
        assert there.index() == opened(study).index()


def test_the_process_ends_with_the_page(study, monkeypatch):
    started = []

    class Noted(ahead.subprocess.Popen):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            started.append(self)

    monkeypatch.setattr(ahead.subprocess, "Popen", Noted)
    there = opened(study)
    with read_ahead(there, study):
        assert len(started) == 1
    assert started[0].returncode is not None
    assert there.index() == opened(study).index()
