"""An audit as a whole: in Python, by the command, on disk, and as a page."""

import json
import re
from dataclasses import replace

import pytest
import torch
from pocket_bench import Untouched, between, pocket_bench

from npo_kit.audit import audit, session
from npo_kit.audit.bench import Reading
from npo_kit.audit.cards import CARDS
from npo_kit.audit.controls import Controls, read_controls, write_controls
from npo_kit.audit.report import report
from npo_kit.audit.session import bench_of
from npo_kit.cli.program import main
from npo_kit.data.tasks import load_authors
from npo_kit.errors import KitError

ROWS = 12  # of one author
ENOUGH = 60  # of five: fewer decide nothing


@pytest.fixture(scope="module")
def models():
    bench = pocket_bench()
    return bench.prompts, bench.original, bench.retained


def begun(models, model=None, cards=("verbatim", "membership"), **options):
    prompts, original, retained = models
    options = {"rows": ROWS, "original": original, "retained": [retained]} | options
    return audit(model or between(), prompts, load_authors(), cards=cards, **options)


def controls_of(models, count=30):
    """Models that differ from the retained-only one by a little noise."""
    bench = bench_of(load_authors(), *models, rows=ENOUGH)
    rows = {name: session.measured(name, models[2], bench).rows for name in ("verbatim",)}
    original = {"verbatim": session.measured("verbatim", models[1], bench).rows}
    noise = torch.Generator().manual_seed(0)
    drawn = {}
    for name, of in rows.items():
        drawn[name] = [
            [v + 0.02 * float(torch.randn((), generator=noise)) for v in of] for _ in range(count)
        ]
    fingerprint = bench.task.record()["fingerprint"]
    return Controls(fingerprint, 0, original, drawn, {"alarms": None})


def test_cards_come_as_they_are_done_and_the_models_stay_as_they_are(models):
    model, told = between(), []
    model.train()
    try:
        with Untouched(model, *models[1:]):
            found = begun(models, model, progress=lambda *progress: told.append(progress))
            first = next(iter(found))
            assert first.card is CARDS["verbatim"]
            assert set(found.findings) == {"verbatim"}
            assert [finding.card.name for finding in found] == ["verbatim", "membership"]
    finally:
        model.eval()
    assert {name for name, *_ in told} == {"audited", "original", "retained-1"}
    assert first.evidence.points == pytest.approx([found.findings["verbatim"].evidence.points[0]])
    between_ends = sorted([first.original.value, first.evidence.points[0]])
    assert between_ends[0] < first.reading.value < between_ends[1]


def test_it_prints_as_a_table_with_two_lines(models):
    found = begun(models, cards=["verbatim"]).run()
    lines = repr(found).splitlines()
    assert lines[1].startswith("Verbatim")
    assert lines[-2].startswith("says: ")
    assert lines[-1].startswith("hides: ")
    assert found.verdict.state == "no verdict"
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert set(record["cards"]["verbatim"]) >= {"value", "band", "points", "rows"}
    assert set(record["verdict"]) == {"state", "damaged", "says", "hides"}


def test_recorded_controls_give_a_band_and_a_verdict_where_they_fit(models, tmp_path):
    file = tmp_path / "controls.json"
    write_controls(file, controls_of(models))
    known = read_controls(file)
    assert known == controls_of(models)
    enough = {"cards": ["verbatim"], "rows": ENOUGH}
    for model, state in ((models[1], "remembers"), (models[2], "retained-like")):
        found = begun(models, model, **enough, controls=known).run()
        assert found.verdict.state == state
        assert found.findings["verbatim"].evidence.band
    other = replace(known, task="of other rows")
    assert begun(models, **enough, controls=other).run().verdict.state == "no verdict"
    moved = [None if value is None else value + 1 for value in known.original["verbatim"]]
    stranger = replace(known, original={"verbatim": moved})
    assert begun(models, **enough, controls=stranger).controls is None


def test_it_resumes_by_card(models, tmp_path, monkeypatch):
    first = begun(models, cards=["verbatim"], folder=tmp_path / "a").run()
    measured = []
    own = session.measured

    def noted(card, model, bench):
        measured.append(card)
        return own(card, model, bench)

    monkeypatch.setattr(session, "measured", noted)
    again = begun(models, folder=tmp_path / "a").run()
    assert set(measured) == {"membership"}
    now, then = (each.record()["cards"]["verbatim"] for each in (again, first))
    assert {**now, "seconds": 0} == {**then, "seconds": 0}
    with pytest.raises(KitError, match="whose seed is 0, not 1: choose another folder"):
        begun(models, folder=tmp_path / "a", seed=1)


def test_what_cannot_be_audited_is_refused(models):
    with pytest.raises(KitError, match="unknown card 'verbatm': choose among verbatim, leak"):
        begun(models, cards=["verbatm"])
    with pytest.raises(KitError, match="never saw the forget rows"):
        begun(models, retained=[])
    task = load_authors()
    empty = replace(task, evaluation={**task.evaluation, "forget": []})
    with pytest.raises(KitError, match="none of the 0 forget rows"):
        audit(between(), models[0], empty, original=models[1], retained=[models[2]])


def test_the_command_writes_what_python_gives(models, tmp_path, capsys):
    told = ["audit", "pocket:retained", "--task", "authors:forget10", "--original", "pocket"]
    told += ["--retained", "pocket:retained", "--rows", str(ROWS), "--cards", "verbatim", "guards"]
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    assert main([*told, *files, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    here = begun(models, models[2], cards=["verbatim", "guards"]).run().record()
    for name in ("verbatim", "guards"):
        assert record["cards"][name]["value"] == pytest.approx(here["cards"][name]["value"])
    assert f"says: {record['verdict']['says']}" in said
    assert record["cards"]["verbatim"]["lower"] is None  # they are of one author
    assert "(no interval)" in said
    assert "no interval" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "hides: nothing was tested that would bring it back" in said  # no such card was asked
    assert "the recorded controls do not fit: they are of 120 rows, and 12 were asked" in said
    assert main([*told, *files]) == 2
    assert "exists: give --overwrite" in capsys.readouterr().err
    assert main([*told, "--rows", "0"]) == 2
    assert main([*told, "--retained", "pocket:retained", "pocket:retained"]) == 2
    assert "pocket:retained twice: a band needs different models" in capsys.readouterr().err
    assert main([*told, "--json", str(tmp_path / "none" / "a.json")]) == 2


def test_the_page_shows_every_number_runs_nothing_and_escapes_names(models):
    record = begun(models, cards=["verbatim"], rows=ENOUGH).run().record()
    record |= {"model": "<script>alert(1)"}
    page = report(record)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    card = record["cards"]["verbatim"]
    cells = re.findall(r'<td class="n">([^<]*)</td>', page)
    assert cells == [
        f"{card['value']:.3g}",
        f"{card['lower']:.3g} to {card['upper']:.3g}",
        f"{card['original']:.3g}",
        f"{card['points'][0]:.3g}",
    ]
    assert record["verdict"]["says"] in page


def test_a_card_without_a_value_is_shown_as_such(models, monkeypatch):
    empty = Reading(float("nan"), [None] * ROWS)
    monkeypatch.setattr(session, "measured", lambda *_: empty)
    found = begun(models, cards=["membership"]).run()
    assert "no value" in report(found.record())
    assert "nan" in repr(found)
