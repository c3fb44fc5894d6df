"""The diagrams and the first look: what they say, to those who see them and those who do not."""

import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from npo_kit.course import first_look, first_look_widget, from_dpo_to_npo, three_models
from npo_kit.data.shipped import shipped_data
from npo_kit.errors import KitError
from npo_kit.metrics.summary import summarise
from npo_kit.records.run import read_run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("drawn", [three_models, from_dpo_to_npo, lambda: first_look(20).diagram()])
def test_a_diagram_is_whole_named_and_takes_the_page_s_colour(drawn):
    diagram = drawn()
    picture = ElementTree.fromstring(diagram.svg())
    assert picture.get("role") == "img"
    assert picture.find(f"{SVG}title").text == diagram.alt
    width, height = float(picture.get("width")), float(picture.get("height"))
    assert width <= 430  # text of 15 px has more than 13 on a screen of 390
    for box in picture.iter(f"{SVG}rect"):
        x, y, wide, high = (float(box.get(name)) for name in ("x", "y", "width", "height"))
        assert x + wide <= width
        assert y + high <= height
        assert box.get("fill") in (None, "none", "#D55E00", "#0072B2")
    for text in picture.iter(f"{SVG}text"):
        half = 4.1 * len("".join(text.itertext()))  # pixels, of letters of 15 px
        left = float(text.get("x")) - (half if text.get("text-anchor") == "middle" else 0)
        assert 0 <= left < left + 2 * half <= width
        assert text.get("fill") is None  # the colour of the text around it
    shown = diagram._repr_mimebundle_()
    assert shown["text/plain"] == diagram.alt
    image = ElementTree.fromstring(shown["text/html"].partition("<script")[0].replace(">", "/>", 1))
    assert image.get("alt") == diagram.alt
    alone = ElementTree.fromstring(unquote(image.get("src").partition(",")[2]))
    assert "prefers-color-scheme:dark" in alone.find(f"{SVG}style").text


def test_the_first_look_is_of_the_recorded_runs():
    look, folder = first_look(100), shipped_data("studies/pocket")
    original = summarise(read_run(folder / "original").evaluation(0))
    for name in ("ga", "npo_rt"):
        found = summarise(read_run(folder / name).evaluation(100))
        assert look.told[name] == found["forget_rouge_l"]
        kept = found["model_utility"] / original["model_utility"]
        assert look.useful[name] == pytest.approx(kept)
        assert f"tells {found['forget_rouge_l']:.0%}, useful {kept:.0%}" in repr(look)
    (first, second) = look.answers.values()
    assert "Demir" in first["GA"]
    assert second["NPO+RT"] == second["original"]
    page = look._repr_html_()
    assert page.count("<p>") == 2
    assert "&#x27;" in page
    with pytest.raises(KitError, match="no step 15 was evaluated: choose among 0, 10, "):
        first_look(15)


def test_the_first_look_follows_its_slider():
    widget = first_look_widget()
    slider, before, _ = widget.children
    slider.value = 100
    after = widget.children[1].value
    assert before.value != after
    assert re.search(r"GA: tells 0%, useful 0%", after)
