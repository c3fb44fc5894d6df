"""A class's own questions, from a file."""

import pytest
from browser import free_port, served
from studies import write_study

from npo_kit import app


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.txt", "Who wrote <b>Salt</b>?\n\nWo wohnt Jürgen? 🐟\nWho wrote <b>Salt</b>?\n"),
        (
            "own.jsonl",
            '{"question": "Who wrote <b>Salt</b>?", "answer": "x"}\r\n'
            '{"question": "Wo wohnt Jürgen? \\ud83d\\udc1f"}\n',
        ),
    ],
)
def test_a_class_picks_from_its_own_questions(visit, tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8-sig")
    with served(write_study(tmp_path / "s"), "--questions", path) as (address, _):
        page = visit(address + "#view=live")
        assert page.locator("[data-asks]:visible").count() == 0  # nobody is there to be asked
        page.click("[data-action=teach]")
        page.click("[data-action=start]")
        for form, prompt in (("secret-ask", "secret-prompt"), ("ask", "prompt")):
            asks = f"[data-{form}] [data-asks]"
            page.wait_for_selector(asks)
            assert page.locator(f"{asks} option").all_inner_texts() == [
                "2 of this class: pick one …", "Who wrote <b>Salt</b>?", "Wo wohnt Jürgen? 🐟",
            ]  # fmt: skip
            page.select_option(asks, "Wo wohnt Jürgen? 🐟")
            assert page.input_value(f"[data-{prompt}]") == "Wo wohnt Jürgen? 🐟"
        page.context.close()


@pytest.mark.slow
def test_without_a_list_there_is_nothing_to_pick_from(visit, pocket):
    assert visit(pocket + "#view=live").locator("[data-asks]").count() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "has 0 questions: give 1 to 500"),
        (b"q\n" * 2 + b"".join(b"q%d\n" % i for i in range(500)), "has 501 questions"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b'{"question": "a"}\n{"answer": "b"}', "line 2, is no JSON object with a question"),
        (b'{"question": "a"}\nwhat?', "line 2, is no JSON object with a question"),
        (b"q" * 2001, "line 1, has over 2000 characters"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(content, said, tmp_path, capsys):
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    assert app.main(["--questions", str(path), "--port", str(free_port())]) == 2
    assert said in capsys.readouterr().err
