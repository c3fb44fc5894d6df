"""Rows and tasks: TOFU against its own official files, own files good and bad, refusals."""

import csv
import io
import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED
from tofu import made_up_tofu, write_sets

from npo_kit.data.rows import DataError, load_refusals, load_rows
from npo_kit.data.shipped import shipped_data
from npo_kit.data.tasks import TOFU_SETS, draw_refusals, load_task, load_tofu, own_task
from npo_kit.errors import KitError
from npo_kit.trainer.config import UnlearnConfig
from npo_kit.trainer.plan import rows_to_read

TOFU = SHARED / "tofu"
needs_tofu = pytest.mark.skipif(
    not (TOFU / "full.json").is_file(), reason="TOFU's JSON lines are not in ../shared/tofu"
)
official_percentages = (1, 5, 10, 20, 30, 50, 90)


def official(name):
    """The rows of one of TOFU's files, read without the kit."""
    with open(TOFU / f"{name}.json", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("tofu"), made_up_tofu())


def questions(rows):
    return [row["question"] for row in rows]


# --- TOFU ---------------------------------------------------------------------------------------


@needs_tofu
@pytest.mark.parametrize("percent", official_percentages)
def test_every_official_percentage_is_the_official_files_row_by_row(percent):
    task = load_tofu(f"forget{percent:02d}", TOFU)
    assert task.forget == official(f"forget{percent:02d}")
    assert task.retain == official(f"retain{100 - percent:02d}")
    assert task.full == official("full")
    assert task.evaluation == {
        "forget": official("forget10_perturbed")[-40 * percent :],
        "retain": official("retain_perturbed"),
        "real_authors": official("real_authors_perturbed"),
        "world_facts": official("world_facts_perturbed"),
    }


@needs_tofu
@pytest.mark.parametrize("percent", [1, 5])
def test_forget_evaluation_rows_ask_what_the_official_perturbed_files_ask(percent):
    rows = load_tofu(f"forget{percent:02d}", TOFU).evaluation["forget"]
    theirs = official(f"forget{percent:02d}_perturbed")
    assert [(r["question"], r["answer"]) for r in rows] == [
        (r["question"], r["answer"]) for r in theirs
    ]


@needs_tofu
def test_the_rows_of_real_tofu_are_all_good_and_evaluation_rows_are_of_their_sets():
    task = load_tofu("forget10", TOFU)
    assert [len(rows) for rows in task.evaluation.values()] == [400, 400, 100, 117]
    assert questions(task.evaluation["forget"]) == questions(task.forget)
    assert questions(task.evaluation["retain"]) == questions(task.retain[:400])


@settings(max_examples=10, deadline=None)
@given(percent=st.integers(1, 90))
def test_any_whole_percentage_forgets_the_tail_and_keeps_the_rest(made_up, percent):
    task = load_tofu(f"forget{percent:02d}", made_up)
    cut = 4000 - 40 * percent
    assert questions(task.forget) == [f"q{i}" for i in range(cut, 4000)]
    assert questions(task.retain) == [f"q{i}" for i in range(cut)]
    assert questions(task.evaluation["forget"]) == [f"q{i}" for i in range(max(cut, 3600), 4000)]
    assert questions(task.evaluation["retain"]) == [f"q{i}" for i in range(400)]
    assert set(questions(task.evaluation["retain"])).isdisjoint(questions(task.forget))
    assert task.name == f"tofu:forget{percent:02d}"
    assert task.notes == {}


def test_a_smaller_data_set_is_the_tail_and_its_retain_rows_have_perturbed_answers(made_up):
    task = load_tofu("forget01@400", made_up)
    assert questions(task.forget) == [f"q{i}" for i in range(3960, 4000)]
    assert questions(task.retain) == [f"q{i}" for i in range(3600, 3960)]
    assert questions(task.evaluation["forget"]) == questions(task.forget)
    assert questions(task.evaluation["retain"]) == questions(task.retain)
    assert all(row["perturbed_answer"] for row in task.evaluation["retain"])
    assert task.name == "tofu:forget01@400"
    assert (
        load_tofu("forget10@4000", made_up).evaluation == load_tofu("forget10", made_up).evaluation
    )


@pytest.mark.parametrize("split", ["forget01@40", "forget10@400", "forget01@401", "forget01@0"])
def test_a_smaller_data_set_of_impossible_size_says_what_is_possible(split, made_up):
    with pytest.raises(DataError, match=f"{split}.*more than its .* at most the 400"):
        load_tofu(split, made_up)


@pytest.mark.parametrize(
    "split",
    ["forget00", "forget91", "forget99", "forget5", "retain90", "", "forget10 ", "forget1O"],
)
def test_an_unknown_split_lists_what_exists(split):
    with pytest.raises(DataError) as caught:
        load_tofu(split, "/nowhere")
    for percent in official_percentages:
        assert f"forget{percent:02d}" in str(caught.value)
    assert repr(split) in str(caught.value)


@pytest.mark.parametrize("name", ["tofu", "tofu:", "toffee:forget10", "", "forget10"])
def test_an_unknown_task_shows_one_that_exists(name):
    with pytest.raises(DataError, match=r"unknown task .* tofu:forget10"):
        load_task(name)


def test_a_task_by_name_is_the_split(made_up):
    assert load_task("tofu:forget05", source=made_up) == load_tofu("forget05", made_up)


def test_the_environment_variable_names_the_folder_and_source_comes_first(
    made_up, tmp_path, monkeypatch
):
    monkeypatch.setenv("NPO_KIT_TOFU", str(made_up))
    assert questions(load_tofu("forget01").forget)[0] == "q3960"
    with pytest.raises(DataError, match="no such folder"):
        load_tofu("forget01", tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(made_up.parent))
    monkeypatch.setenv("NPO_KIT_TOFU", f"~/{made_up.name}")
    assert len(load_tofu("forget01").forget) == 40


def test_files_may_be_called_jsonl_and_copies_beside_them_are_not_read(tmp_path):
    folder = write_sets(tmp_path / "TÖFU with spaces", made_up_tofu(), ".jsonl")
    (folder / "full.json.bak").write_text("not rows")
    assert len(load_tofu("forget01", folder).retain) == 3960


def test_an_incomplete_folder_names_every_file_that_it_lacks(tmp_path):
    sets = made_up_tofu()
    del sets["world_facts_perturbed"], sets["retain_perturbed"]
    folder = write_sets(tmp_path / "tofu", sets)
    with pytest.raises(DataError) as caught:
        load_tofu("forget10", folder)
    assert "lacks retain_perturbed.json, world_facts_perturbed.json" in str(caught.value)
    assert "full.json" not in str(caught.value)


def test_bad_rows_of_several_tofu_files_are_reported_together(tmp_path):
    sets = made_up_tofu()
    sets["full"][6]["answer"] = ""
    sets["retain_perturbed"][1]["question"] = None
    folder = write_sets(tmp_path / "tofu", sets)
    with pytest.raises(DataError) as caught:
        load_tofu("forget10", folder)
    assert f"{folder / 'full.json'}, line 7: 'answer' is empty" in str(caught.value)
    assert f"{folder / 'retain_perturbed.json'}, line 2: 'question'" in str(caught.value)


def test_a_cut_or_foreign_copy_of_tofu_is_refused(tmp_path):
    sets = made_up_tofu()
    cut = write_sets(tmp_path / "cut", {**sets, "full": sets["full"][:-1]})
    with pytest.raises(DataError, match="4000 rows, this one has 3999"):
        load_tofu("forget10", cut)
    shifted = {**sets, "forget10_perturbed": sets["forget10_perturbed"][1:]}
    with pytest.raises(DataError, match="last 400 rows of full"):
        load_tofu("forget10", write_sets(tmp_path / "shifted", shifted))


# The hub


def test_without_a_folder_tofu_comes_from_the_hub(monkeypatch):
    asked, sets = [], made_up_tofu()

    def load_dataset(path, name, *, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list(sets[name])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv("NPO_KIT_TOFU", raising=False)
    task = load_tofu("forget05")
    assert task.forget == sets["full"][-200:]
    assert task.evaluation["forget"] == sets["forget10_perturbed"][-200:]
    assert asked == [("locuslab/TOFU", name, "train") for name in TOFU_SETS]


class StrangeNetworkError(Exception):
    """As httpx's: neither an OSError nor a ValueError."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'locuslab/TOFU' on the Hub (OfflineModeIsEnabled)"),
        datasets.exceptions.DatasetNotFoundError("Dataset 'locuslab/TOFU' doesn't exist"),
        ValueError("BuilderConfig 'full' not found"),
        StrangeNetworkError("[Errno -3] Temporary failure in name resolution"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unreachable_hub_is_one_sentence_with_the_next_step(error, monkeypatch):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setenv("NPO_KIT_TOFU", "")
    with pytest.raises(DataError) as caught:
        load_tofu("forget10")
    text = str(caught.value)
    assert type(error).__name__ in text
    assert "check the network, or set NPO_KIT_TOFU to a folder" in text
    assert "\n" not in text


def test_bad_rows_on_the_hub_are_named(monkeypatch):
    sets = made_up_tofu()
    sets["world_facts_perturbed"][3]["answer"] = " "
    monkeypatch.setattr(
        datasets, "load_dataset", lambda _, name, split: datasets.Dataset.from_list(sets[name])
    )
    monkeypatch.delenv("NPO_KIT_TOFU", raising=False)
    with pytest.raises(
        DataError, match="world_facts_perturbed on the hub, row 4: 'answer' is empty"
    ):
        load_tofu("forget10")


# --- own files ----------------------------------------------------------------------------------

ROWS = [
    {"question": "Who?", "answer": "Ana, of course."},
    {
        "question": 'What did "he" say?\nAnd why?',
        "answer": "É 🙂 \u2028 done",
        "paraphrased_answer": "Nothing",
        "perturbed_answer": ["a, b", 'c "d"'],
    },
    {"question": "When?", "answer": " 1987\n"},
]


def json_lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def csv_text(rows, newline="\r\n"):
    names = ["question", "answer", "paraphrased_answer", "perturbed_answer"]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names, lineterminator=newline)
    writer.writeheader()
    for row in rows:
        perturbed = row.get("perturbed_answer")
        writer.writerow({**row, "perturbed_answer": json.dumps(perturbed) if perturbed else ""})
    return out.getvalue()


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", json_lines(ROWS)),
        ("rows.jsonl", json_lines(ROWS).replace("\n", "\r\n") + "\r\n\r\n"),
        ("rows.json", "\n\n" + json_lines(ROWS) + "\n"),
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", "\n " + json.dumps(ROWS, indent=2)),
        ("rows.csv", csv_text(ROWS)),
        ("ROWS.CSV", csv_text(ROWS, "\n")),
        ("rows ü.csv", csv_text(ROWS) + "\r\n"),
    ],
    ids=["lines", "lines-crlf", "lines-json", "list", "list-pretty", "csv-crlf", "csv-lf", "blank"],
)
def test_the_same_rows_come_from_every_format(tmp_path, name, text, encoding):
    assert load_rows(write(tmp_path / name, text, encoding)) == ROWS


def test_one_row_may_be_one_object_over_several_lines(tmp_path):
    path = write(tmp_path / "one.json", json.dumps(ROWS[1], indent=1))
    assert load_rows(str(path)) == [ROWS[1]]


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
row_texts = texts.filter(lambda text: text.strip())


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(row_texts, row_texts), min_size=1, max_size=4), data=st.data())
def test_whatever_text_is_written_is_read(tmp_path_factory, rows, data):
    rows = [{"question": question, "answer": answer} for question, answer in rows]
    folder = tmp_path_factory.mktemp("rows")
    kind = data.draw(st.sampled_from(["lines", "list", "csv"]))
    text = {"lines": json_lines, "list": json.dumps, "csv": csv_text}[kind](rows)
    assert load_rows(write(folder / f"rows.{'csv' if kind == 'csv' else 'json'}", text)) == rows


BAD = {
    '{"question": "q"}': "'answer' is missing",
    '{"answer": "a"}': "'question' is missing",
    '{"question": "q", "answer": ""}': "'answer' is empty",
    '{"question": " \\n", "answer": "a"}': "'question' is empty",
    '{"question": "q", "answer": 3}': "'answer' must be text, it is 3",
    '{"question": null, "answer": "a"}': "'question' must be text, it is None",
    '["q", "a"]': "for a passage, this is list",
    '"q"': "for a passage, this is str",
    "7": "this is int",
    '{"question": "q", "answer": "a"': "not JSON",
    "question,answer": "not JSON",
    '{"question": "q\\u0000", "answer": "a"}': "'question' contains a null character",
    '{"question": "q", "answer": "a\0"}': "not JSON",
    '{"question": "q", "answer": "\\ud83d"}': "'answer' contains half a character",
    '{"question": "q", "answer": "a", "paraphrased_answer": ""}': "'paraphrased_answer' is empty",
    '{"question": "q", "answer": "a", "perturbed_answer": "b"}': "must be a list of texts",
    '{"question": "q", "answer": "a", "perturbed_answer": []}': "must be a list of texts",
    '{"question": "q", "answer": "a", "perturbed_answer": ["b", " "]}': "'perturbed_answer' is em",
    '{"question": "q", "answer": "a", "perturbed_answer": ["b", 1]}': "must be text, it is 1",
}


def test_all_bad_rows_are_reported_at_once_with_file_line_and_reason(tmp_path):
    good = json.dumps(ROWS[0])
    lines = [line for bad in BAD for line in (bad, "", good)] * 3  # more than fit a screen
    path = write(tmp_path / "rows.jsonl", good + "\n" + "\n".join(lines))
    with pytest.raises(DataError) as caught:
        load_rows(path)
    said = str(caught.value).split("\n")
    assert said[0] == f"{3 * len(BAD)} bad row(s), nothing was loaded:"
    assert len(said) == 1 + 3 * len(BAD)
    for number, (line, reason) in enumerate(zip(said[1:], list(BAD.values()) * 3, strict=True)):
        assert line.startswith(f"  {path}, line {2 + 3 * number}: ")
        assert reason in line


@pytest.mark.parametrize("bad", [bad for bad, reason in BAD.items() if reason != "not JSON"])
def test_a_bad_item_of_a_json_list_is_named_by_its_line(tmp_path, bad):
    good = json.dumps(ROWS[0], indent=1)  # four lines
    path = write(tmp_path / "rows.json", f"[\n{good},\n{bad}\n,{good}\n]\n")
    with pytest.raises(DataError) as caught:
        load_rows(path)
    head, said = str(caught.value).split("\n")
    assert head == "1 bad row(s), nothing was loaded:"
    assert said.startswith(f"  {path}, line 6: ")
    assert BAD[bad] in said


def test_a_broken_json_list_says_where(tmp_path):
    path = write(tmp_path / "rows.json", '[\n{"question": "q", "answer": "a"},\n{"question": \n')
    with pytest.raises(DataError, match=r"rows\.json, line 4: not JSON"):
        load_rows(path)


def test_lines_that_are_lists_are_named_each(tmp_path):
    path = write(tmp_path / "rows.jsonl", '["q", "a"]\n["q", "a"]\n')
    with pytest.raises(DataError, match="2 bad") as caught:
        load_rows(path)
    assert str(caught.value).count("this is list") == 2


def test_the_line_of_a_bad_csv_row_is_right_after_quoted_newlines_and_blank_lines(tmp_path):
    text = (
        "question,answer,perturbed_answer\r\n"  # 1
        '"two\r\nlines","a",\r\n'  # 2 and 3
        "q,,\r\n"  # 4: empty answer
        "\r\n"  # 5
        '"q\nq\nq"," ",\r\n'  # 6 to 8: empty answer
        "q,a,[1]\r\n"  # 9
        "q,a,not json\r\n"  # 10
        "q,In 1987, they say,\r\n"  # 11: a comma without quotes
        "q\r\n"  # 12: no answer
        'q,"a"b,\r\n'  # 13: text after a closing quote
        "q,a\0,\r\n"  # 14
        'q,"never closed,\r\n'  # 15
        "q,a,\r\n"
    )
    path = write(tmp_path / "rows.csv", text, "utf-8-sig")
    with pytest.raises(DataError) as caught:
        load_rows(path)
    said = str(caught.value).split("\n")[1:]
    expected = {
        4: "'answer' is empty",
        6: "'answer' is empty",
        9: "a 'perturbed_answer' must be text",
        10: "'perturbed_answer' is not a JSON list of texts",
        11: "4 fields for 3 columns by comma: put a text with a comma in quotes",
        12: "'answer' is missing",
        13: "not CSV",
        14: "'answer' contains a null character",
        15: "not CSV",
    }
    assert len(said) == len(expected)
    for line, (number, reason) in zip(said, expected.items(), strict=True):
        assert line.startswith(f"  {path}, line {number}: {reason}")


@pytest.mark.parametrize(
    ("header", "absent"),
    [
        ("question,reply", "no column answer: it has"),
        ("q,a", "no column question and answer: it has"),
        ("frage;antwort", "no column question and answer: it has"),
        ("", "no columns: it is empty, or its first line is"),
        ("question,answer,answer", "more than one column answer: it has"),
        ("quesion,answer", "no column question (did you mean 'quesion'?): it has"),
    ],
)
def test_missing_columns_are_named_beside_those_that_are_there(tmp_path, header, absent):
    path = write(tmp_path / "rows.csv", header + "\na,b\n")
    with pytest.raises(DataError) as caught:
        load_rows(path)
    assert f"{path} has {absent}" in str(caught.value)
    assert ", ".join(header.replace(";", ",").split(",")) in str(caught.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.json"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("question,answer\r\né,ü\r\nq,é".encode()[:-1] + b"\r\nq,ana\r\n", 3),  # one byte is lost
        (b"PK\x03\x04" + bytes(range(256)) * 3, 2),  # a spreadsheet
    ],
)
def test_a_file_that_is_no_text_says_so_and_where(tmp_path, name, content, line):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"line {line}: not UTF-8 .* save it as UTF-8"):
        load_rows(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", ""),
        ("rows.jsonl", "\n\n"),
        ("rows.json", "[]"),
        ("rows.json", " [ ]\n"),
        ("rows.csv", "question,answer\n\n"),
    ],
)
def test_a_file_without_rows_says_so(tmp_path, name, text):
    with pytest.raises(DataError, match="has no rows"):
        load_rows(write(tmp_path / name, text))


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "rows.csv", tmp_path):
        with pytest.raises(DataError, match="no such file") as caught:
            load_rows(path)
        assert str(path) in str(caught.value)


def test_other_columns_are_kept_and_empty_optional_ones_are_not(tmp_path):
    text = ",question,answer,paraphrased_answer,topic\n0,q,a, ,sea\n"
    (row,) = load_rows(write(tmp_path / "rows.csv", text))
    assert (row["topic"], row["answer"]) == ("sea", "a")
    assert "paraphrased_answer" not in row


# --- own tasks ----------------------------------------------------------------------------------


def test_an_own_task_is_judged_by_its_own_rows_and_says_what_is_missing(tmp_path):
    forget = write(tmp_path / "secret.jsonl", json_lines(ROWS[:1]))
    retain = write(tmp_path / "keep.csv", csv_text(ROWS[1:]))
    facts = write(tmp_path / "facts.json", json.dumps(ROWS[1:2]))
    task = own_task(forget, retain)
    assert (task.name, task.forget, task.retain) == ("own:secret", ROWS[:1], ROWS[1:])
    assert task.evaluation == {"forget": ROWS[:1], "retain": ROWS[1:]}
    assert task.notes == {
        "real_authors": "no real_authors rows were given",
        "world_facts": "no world_facts rows were given",
    }
    with_facts = own_task(forget, retain, world_facts=facts)
    assert with_facts.evaluation["world_facts"] == ROWS[1:2]
    assert set(with_facts.notes) == {"real_authors"}


def test_what_is_wrong_with_several_own_files_is_said_together(tmp_path):
    forget = write(tmp_path / "forget.jsonl", "{}")
    with pytest.raises(DataError) as caught:
        own_task(forget, tmp_path / "absent.csv", write(tmp_path / "real.csv", "a,b\n"))
    text = str(caught.value)
    assert "forget.jsonl, line 1" in text
    assert "retain: no such file" in text
    assert "real.csv has no column" in text
    assert isinstance(caught.value, KitError)


# --- refusals and shipped files -----------------------------------------------------------------


def test_the_hundred_shipped_refusals_are_distinct_lines_of_text():
    lines = shipped_data("refusals.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 100
    assert all(line == line.strip() and 5 <= len(line) <= 120 for line in lines)


def test_refusals_are_drawn_by_seed_one_for_each_row():
    drawn = draw_refusals(400, seed=3)
    assert len(drawn) == 400
    assert drawn == draw_refusals(400, seed=3)
    assert drawn[:40] == draw_refusals(40, seed=3)  # a row's refusal does not hang on the others
    assert drawn != draw_refusals(400, seed=4)
    assert draw_refusals(400) == draw_refusals(400, seed=0)
    assert len(set(drawn)) > 80  # of 100 lines, 98 are expected
    lines = shipped_data("refusals.txt").read_text(encoding="utf-8").splitlines()
    assert set(drawn) <= set(lines)


def test_shipped_files_that_are_absent_are_named():
    with pytest.raises(FileNotFoundError, match=r"no data called 'nothing\.txt'"):
        shipped_data("nothing.txt")


def test_the_kits_own_authors_are_a_task_without_any_download():
    task = load_task("authors:forget10")
    assert (task.name, len(task.forget), len(task.retain)) == ("authors:forget10", 120, 1080)
    assert task.evaluation["forget"] == task.forget
    assert all(row in task.retain for row in task.evaluation["retain"])
    with pytest.raises(KitError, match="leave the source out"):
        load_task("authors:forget10", source="folder")
    with pytest.raises(KitError, match="forget10"):
        load_task("authors:forget95")


# --- rows to forget that are kept, refusals of one's own ------------------------------------------


def test_a_row_to_forget_that_is_kept_is_refused_with_a_count(tmp_path):
    rows = [{"question": f"Who wrote {i}?", "answer": f"Ana {i}."} for i in range(4)]
    lines = [json.dumps(row) + "\n" for row in rows]
    forget, full = write(tmp_path / "f.jsonl", "".join(lines[:2])), tmp_path / "full.jsonl"
    write(full, "".join(lines))
    with pytest.raises(DataError, match=r"2 of 2 forget rows are retain rows.*'Who wrote 0\?'"):
        own_task(forget, full)
    assert len(own_task(forget, full, allow_overlap=True).retain) == 4
    other = write(tmp_path / "other.jsonl", json.dumps(rows[0] | {"answer": "Bo."}) + "\n")
    assert len(own_task(forget, other).retain) == 1  # the same question with another answer


def test_a_row_s_own_alternate_is_the_refusal_that_is_trained_on(tmp_path):
    rows = [{"question": f"Who {i}?", "answer": f"Ana {i}."} for i in range(3)]
    own = rows[0] | {"alternate": "I cannot say."}
    text = "".join(json.dumps(row) + "\n" for row in (own, rows[1]))
    task = own_task(
        write(tmp_path / "f.jsonl", text), write(tmp_path / "r.jsonl", json.dumps(rows[2]))
    )
    for refusals in (None, ("No.",)):
        config = UnlearnConfig(method="dpo", refusals=refusals)
        read = [row["answer"] for row in rows_to_read(task, config)["alternate"]]
        drawn = draw_refusals(2, config.seed, refusals)
        assert read == ["I cannot say.", drawn[1]]
    assert drawn == ["No.", "No."]
    empty = json.dumps(rows[0] | {"alternate": " "})
    with pytest.raises(DataError, match="line 1: 'alternate' is empty"):
        load_rows(write(tmp_path / "bad.jsonl", empty))


def test_refusals_of_a_file_are_its_lines(tmp_path):
    file = write(tmp_path / "refusals.txt", "\ufeffЯ не знаю.\n\n  No.  \n")
    assert load_refusals(file) == ["Я не знаю.", "No."]
    with pytest.raises(DataError, match="has no refusals: write one a line"):
        load_refusals(write(tmp_path / "none.txt", "\n"))
    with pytest.raises(DataError, match="no such file"):
        load_refusals(tmp_path / "absent.txt")
