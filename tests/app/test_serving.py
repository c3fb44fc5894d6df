"""What the server makes of the page: its scripts, each a closure, and the preview of its links."""

import re
import shutil
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import browser, patient, served
from places import ROOT
from studies import write_study

from npo_kit.app.answering import told
from npo_kit.app.packed import packed_studies
from npo_kit.app.page import Answers
from npo_kit.app.scripts import SCRIPTS, STATIC, scripts
from npo_kit.app.visits import Visits

TAKES = re.compile(r"^const \{([^}]*)\} = kit\.(\w+);$", re.MULTILINE)
OFFERS = re.compile(r"^kit\.(\w+) = \{([^}]*)\};\n\Z", re.MULTILINE)
VIEWS = ("tradeoff", "much", "live", "theory", "about", "compare")


def names_in(text):
    return {name for name in re.split(r"[\s,]+", text) if name}


def test_each_script_takes_what_an_earlier_one_offers_and_all_that_is_offered_is_taken():
    offered, taken = {"gradio": {"element", "server"}}, {}
    for script in SCRIPTS:
        text = (STATIC / f"{script}.js").read_text(encoding="utf-8")
        uses = TAKES.findall(text)
        for names, room in uses:
            assert names_in(names) <= offered[room], (script, room)
            taken.setdefault(room, set()).update(names_in(names))
        offers = OFFERS.findall(text)
        assert text.count("kit.") == len(uses) + len(offers), script  # at its top and its end only
        if script != "page":  # which opens it
            ((room, names),) = offers
            assert room == script
            offered[script] = names_in(names)
    assert offered == taken
    assert {path.stem for path in STATIC.glob("*.js")} == {*SCRIPTS, "onefile"}


@pytest.mark.parametrize(
    "command", ["oxlint -c .ci/oxlint.json", "oxfmt -c .ci/oxfmt.json --check"]
)
def test_the_scripts_are_clean(command):
    """Among other rules: a script uses no name that it neither makes nor takes from `kit`."""
    tool, *options = command.split()
    found = shutil.which(tool, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"no {tool} here: pip install -e .[dev]")
    files = sorted(STATIC.glob("*.js"))
    done = subprocess.run([found, *options, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_line_of_the_page_is_long():
    for path in STATIC.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if len(line) > 100] == [], path.name


@pytest.mark.slow
def test_the_scripts_leave_nothing_in_the_global_scope(tmp_path):
    """In a page without Gradio, whose own scripts do; all views are drawn."""
    study = packed_studies(write_study(tmp_path / "collectors"))
    answers = Answers(study, visits=Visits(4), experiment=None)
    asked = {name: told(getattr(answers, name)) for name in Answers.NAMES if name != "theory"}
    with browser() as window:
        page = patient(window.new_page())
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.expose_function("answerTo", lambda name, sent: asked[name](sent))
        html = (STATIC / "page.html").read_text(encoding="utf-8")
        page.set_content(f"<main>{html}</main>")
        before = page.evaluate("Object.getOwnPropertyNames(window)")
        page.evaluate(
            "(code) => Function('element', 'server', code)(document.querySelector('main'), "
            "new Proxy({}, {get: (_, name) => async (sent) => "
            "name === 'theory' ? {problem: 'not here'} : window.answerTo(name, sent)}))",
            scripts(),
        )
        for view in VIEWS:
            page.click(f"[data-tab={view}]")
        page.wait_for_selector("[data-column=b] [data-row=keep] .badge")
        assert page.evaluate("Object.getOwnPropertyNames(window)") == before
        assert problems == []


class Head(HTMLParser):
    """Collects the title and the meta elements of a page, as a crawler does."""

    def __init__(self):
        super().__init__()
        self.found, self.in_title = [], False

    def handle_starttag(self, tag, attributes):
        self.in_title = tag == "title"
        given = dict(attributes)
        if tag == "meta" and (name := given.get("property") or given.get("name")):
            self.found.append((name, given["content"]))

    def handle_data(self, data):
        if self.in_title:
            self.found.append(("title", data))

    def handle_endtag(self, tag):
        self.in_title = False


@pytest.mark.slow
def test_a_link_to_it_has_a_preview_for_who_runs_no_scripts(tmp_path):
    with served(write_study(tmp_path / "collectors")) as (address, _):
        with urllib.request.urlopen(address) as answer:
            html = answer.read()
            assert int(answer.headers["content-length"]) == len(html)
        head = Head()
        head.feed(html.decode())
        said = {name: text for name, text in head.found if name not in ("viewport",)}
        assert len(said) == len([name for name, _ in head.found if name != "viewport"])  # one each
        assert said["title"] == "npo_kit"
        assert said["og:title"] == "npo_kit: see a language model unlearn"
        assert said["og:description"] == said["description"]
        assert "Negative Preference Optimization" in said["description"]
        assert not [text for text in said.values() if "radio" in text]
        with urllib.request.urlopen(said["og:image"]) as picture:
            assert picture.headers["content-type"] == "image/png"
            shown = (ROOT / "data" / "pictures" / "compare.png").read_bytes()
            assert picture.read() == shown
