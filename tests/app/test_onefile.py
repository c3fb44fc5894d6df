"""A study as one file: it opens from disk, asks for nothing, and shows text as text."""

import base64
import gzip
import json
import re
from pathlib import Path
from urllib.parse import urldefrag

import pytest
from browser import OUTSIDE, READY, patient, press
from places import ROOT
from studies import HOSTILE, evaluation, write_run, write_study

from npo_kit.app.onefile import ABSENT, fitted, page, recorded
from npo_kit.app.opening import open_studies
from npo_kit.app.page import RecordedAnswers
from npo_kit.app.scripts import SCRIPTS, STATIC, static_text, styles
from npo_kit.cli import program
from npo_kit.errors import KitError

CLOSING = "</script><script>document.title='broken'</script><!-- \u2028 \u2029 ]]> \"'` &lt;"
DATA = re.compile(rb'<script type="text/plain" id="data">([A-Za-z0-9+/=]+)</script>')


def answers_of(*folders):
    studies, toured = open_studies(folders, ["studies/pocket"])
    return RecordedAnswers(studies, toured=toured)


def inside(html):
    return json.loads(gzip.decompress(base64.b64decode(DATA.search(html)[1])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study whose texts, questions, answers and title try to leave the place for data."""
    folder = write_study(tmp_path_factory.mktemp("study") / "collectors")
    made = [evaluation(step, say=lambda *_: CLOSING) for step in (0, 10)]
    for each in made:
        each.rows["forget"][0] |= {"question": f"Who? {CLOSING}", "answer": f"He {CLOSING}"}
    write_run(folder / "kl", "kl", made, method="npo_kl", seed=0)
    study = json.loads((folder / "study.json").read_text())
    study |= {"title": f"Collectors {CLOSING}", "runs": [*study["runs"], "kl"]}
    (folder / "study.json").write_text(json.dumps(study))
    return folder


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "page.html"
    assert program.main(["page", str(folder), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def pocket_file(tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "pocket.html"
    assert program.main(["page", "--out", str(out)]) == 0
    return out


@pytest.fixture
def opened(window):
    """Opens a file without a network; afterwards nothing may have been asked for or gone wrong."""
    contexts, problems, requests, files = [], [], [], set()

    def opens(path, address="", **options):
        options = {"viewport": {"width": 1280, "height": 900}, "offline": True} | options
        contexts.append(patient(window.new_context(**options)))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        files.add(path.as_uri())
        page.goto(f"{path.as_uri()}{address}")
        page.wait_for_selector(READY)
        return page

    yield opens
    for context in contexts:
        context.close()
    assert problems == []
    made = ("data:image/svg+xml", "blob:")  # by the page itself, for what it saves
    asked = {urldefrag(url)[0] for url in requests if not url.startswith(made)}
    assert asked == files


def wait_said(page):
    """Wait until a column has an answer."""
    page.wait_for_function(
        "(document.querySelector('[data-column=b] .text')?.textContent ?? '…') !== '…'"
    )


def wait_text(page, column, text):
    page.wait_for_function(
        "([column, text]) => document.querySelector(`[data-column=${column}] .text`)"
        "?.textContent === text",
        arg=[column, text],
    )


@pytest.mark.slow
def test_it_opens_from_disk_and_every_view_draws(opened, pocket_file):
    page = opened(pocket_file)
    wait_said(page)
    views = [tab.get_attribute("data-tab") for tab in page.locator("[role=tab]:visible").all()]
    assert "live" not in views
    assert {"compare", "tradeoff", "much", "theory", "about"} <= set(views)
    charts = {"tradeoff": ["tradeoff", "cdf"], "much": ["much-kept", "much-quality"]}
    charts["theory"] = ["weight", "theorem"]
    for view, names in charts.items():
        page.click(f"[data-tab={view}]")
        for name in names:
            page.wait_for_selector(f"[data-chart={name}] svg polyline", state="attached")
            assert page.locator(f"[data-chart={name}] svg text").evaluate_all(OUTSIDE) == []
    assert page.locator("[data-chart=theory-forget]").is_hidden()  # the experiment needs the kit
    page.click("[data-tab=about]")
    page.wait_for_selector("[data-config] dd")
    assert "Live runs and the synthetic experiment" in page.inner_text("[data-provenance]")
    assert page.locator("[data-action=onefile]").is_hidden()
    assert page.locator("[data-problem]").is_hidden()


def test_scrubbing_and_choosing_work_as_on_the_served_page(opened, file):
    page = opened(file, "#a=ga&b=npo_rt")
    wait_text(page, "b", "forget 0 says at 40")
    wait_text(page, "a", HOSTILE)
    page.locator("[data-step]").fill("10")
    wait_text(page, "b", "forget 0 says at 10")
    press(page, "j")
    wait_text(page, "b", "forget 1 says at 10")
    assert "q=1" in page.url
    page.go_back()
    wait_text(page, "b", "forget 0 says at 10")


def test_what_a_model_says_is_text_and_nothing_else(opened, file, folder):
    page = opened(file, "#a=kl&b=npo_rt&step=10")
    wait_text(page, "a", CLOSING)
    assert page.title() == f"Collectors {CLOSING}"
    assert page.locator("main script").count() == 0
    html = file.read_bytes()
    assert html.count(b"<script") == html.count(b"</script") == 2
    assert b"<!--" not in html.replace(b"<!doctype", b"")
    run = html.rpartition(b"<script>")[2].decode()
    assert not set("\u2028\u2029") & set(run)  # no line ends where a script has none
    assert inside(html)["index"]["title"] == f"Collectors {CLOSING}"


def test_the_file_says_what_the_server_says(folder):
    answers = answers_of(folder)
    data = inside(page(recorded(answers, 0)))
    index = answers.index(0)
    for number in range(len(index["questions"])):
        true = answers.texts(0, number)
        for run, cells in true["cells"].items():
            fields = data["cells"][run]
            for step, cell in enumerate(cells):
                for name, value in cell.items():
                    mine = fields[name][step][number]
                    if name == "text":
                        mine, value = data["strings"][mine], true["strings"][value]
                    assert mine == value
    for run in data["cells"]:
        for name, of_steps in answers.scores(0, run).items():
            assert data["cells"][run][name] == of_steps
        assert data["about"][run] == answers.about(0, run)
    assert len(set(data["strings"])) == len(data["strings"])
    assert data["splits"] == json.loads(json.dumps(answers.splits()))
    assert data["theorem"] == json.loads(json.dumps(answers.theorem()))
    assert data["index"]["absent"] == [*answers.index(0)["absent"], *ABSENT]


def test_the_kits_own_study_is_whole_and_small(pocket_file):
    data = inside(pocket_file.read_bytes())
    assert pocket_file.stat().st_size < 6e6
    assert data["index"]["lessons"]
    assert len(data["cells"]) == len(data["index"]["runs"]) == 27
    assert not any(run.get("foreign") for run in data["index"]["runs"])


@pytest.mark.slow
def test_a_study_that_is_too_large_loses_other_seeds_and_settings_first(folder, opened, tmp_path):
    answers = answers_of(folder)
    whole, none = fitted(answers, 0, 6)
    assert none == []
    html, left_out = fitted(answers, 0, (len(whole) - 100) / 1e6)
    assert left_out == ["NPO+RT, seed 1"]
    data = inside(html)
    assert "npo_rt-seed1" not in data["cells"]
    assert len(data["index"]["runs"]) == 7  # its curve counts in the band of the seeds
    assert "NPO+RT, seed 1" in data["index"]["lacks"][1]
    path = tmp_path / "small.html"
    path.write_bytes(html)
    page = opened(path, "#b=npo_rt-seed1&view=tradeoff")
    sides = page.locator("[data-side=b] option").all_text_contents()
    assert "NPO+RT" in sides
    assert "NPO+RT, seed 1" not in sides
    page.wait_for_selector("[data-chart=tradeoff] .band", state="attached")
    with pytest.raises(KitError, match=r"takes .* MB with the first run of each method alone"):
        fitted(answers, 0, 0.01)


@pytest.mark.slow
def test_the_tour_and_a_lesson_are_links(opened, pocket_file):
    page = opened(pocket_file, "#lesson=2&view=compare&set=retain&q=125&step=100&a=ga&b=npo_rt")
    page.wait_for_selector("[data-lesson]")
    assert page.inner_text("[data-lesson]")
    page.evaluate("location.hash = 'view=theory&wb=0.5&hide=about'")  # a prepared lesson
    page.wait_for_selector("[data-tab=theory][aria-selected=true]")
    page.wait_for_selector("[data-chart=theorem] svg polyline", state="attached")
    assert page.locator("[data-tab=about]").is_hidden()
    assert page.inner_text("[data-source]") == "recorded"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_it_is_as_light_or_dark_as_the_system_until_the_theme_is_pressed(opened, file, scheme):
    page = opened(file, color_scheme=scheme)
    ground = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    lightness = sum(map(int, re.findall(r"\d+", before)[:3])) / 3
    assert (lightness > 200) is (scheme == "light")
    page.click("[data-action=theme]")
    page.wait_for_function(f"before => ({ground})() !== before", arg=before)
    page.reload()
    page.wait_for_selector(READY)
    assert page.evaluate(ground) != before


def test_every_colour_of_gradio_that_the_page_uses_has_a_value_in_the_file():
    own = styles() + static_text("onefile.css")
    used = set(re.findall(r"var\((--[\w-]+)\)", own))  # those without a value to fall back on
    scripts = "".join(static_text(f"{name}.js") for name in SCRIPTS)
    given = set(re.findall(r"(--[\w-]+)\s*:", own))
    given |= set(re.findall(r'setProperty\("(--[\w-]+)"', scripts))
    assert used - given == set()


def test_no_script_or_style_of_the_page_could_end_its_place():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").lower()
        assert "</script" not in text, path.name
        assert "<!--" not in text, path.name
        assert "</style" not in text, path.name
    assert " style=" not in static_text("page.html")  # the file's policy would forbid it


@pytest.mark.slow
def test_charts_are_saved_from_the_file(opened, file):
    page = opened(file, "#view=tradeoff", accept_downloads=True)
    page.wait_for_selector("[data-chart=tradeoff] .export button", state="attached")
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as download:
            button = page.locator("[data-chart=tradeoff] .export button", has_text=kind)
            button.dispatch_event("click")
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(start)
        across = re.search(rb'width="(\d+)"', content)[1] if kind == "SVG" else content[16:20]
        assert (int(across) if kind == "SVG" else int.from_bytes(across)) == 1920  # a slide's


@pytest.mark.slow
def test_the_server_gives_the_open_study_as_a_file(visit, opened, pocket, tmp_path):
    page = visit(f"{pocket}#view=about")
    with page.expect_download() as download:
        page.click("[data-action=onefile]")
    assert download.value.suggested_filename == "pocket.html"
    kept = tmp_path / "pocket.html"
    download.value.save_as(kept)
    again = opened(kept)
    wait_said(again)


@pytest.mark.slow
def test_a_page_without_scripts_says_so(window, file):
    context = window.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert "needs JavaScript" in page.inner_text("noscript")
    context.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "there is no folder none"),
        ([str(ROOT / "tests")], "holds no run"),
        (["--task", "tofu:forget10"], "choose authors:forget10"),
        (["--limit", "0.1"], "MB with the first run of each method alone"),
        ([str(ROOT / "data/studies/pocket"), str(ROOT / "data/studies/smollm2")], "one study"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_written_is_said_and_leaves_nothing(arguments, said, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert program.main(["page", *arguments, "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_kept(folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("mine")
    assert program.main(["page", str(folder), "--out", str(out)]) == 2
    assert "exists: choose another name, or --overwrite it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert program.main(["page", str(folder), "--out", str(out), "--overwrite"]) == 0
    assert out.read_bytes().startswith(b"<!doctype html>")
    assert program.main(["page", str(folder), "--out", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_policy_lets_no_other_script_run_and_nothing_be_fetched(window, file):
    context = window.new_context()
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector(READY)
    broken = page.evaluate(
        """async () => {
          const broken = [];
          document.addEventListener("securitypolicyviolation", (event) =>
            broken.push(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "document.title = 'broken'";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<b onclick='1' style='color: red'></b>");
          document.body.append(Object.assign(new Image(), {src: "https://example.org/a.png"}));
          await fetch("https://example.org/").catch(() => {});
          await new Promise((done) => setTimeout(done, 200));
          return broken;
        }"""
    )
    context.close()
    expected = {"script-src-elem", "script-src-attr", "style-src-attr", "img-src", "connect-src"}
    assert set(broken) == expected
