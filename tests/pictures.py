"""Makes the pictures of the READMEs anew from the recorded studies: python tests/pictures.py.

Two are drawn from the records alone; the picture of the page wants a browser.
"""

import textwrap
from html import escape

from browser import browser, served
from matplotlib import rc_context
from matplotlib.figure import Figure
from places import ROOT

from npo_kit.course.figures import how_much
from npo_kit.data.tasks import load_task
from npo_kit.losses.looks import look_of
from npo_kit.records.run import read_run
from npo_kit.studies.splits import split_runs
from npo_kit.studies.table import study_table

PICTURES = ROOT / "data" / "pictures"
STUDY = ROOT / "data" / "studies" / "pocket"
SPLITS = ROOT / "data" / "studies" / "pocket-splits"
MODELS = {"original": 0, "ga": 100, "npo_rt": 100}  # run -> step
SHOWN = {"forget": 2, "retain": 111}  # set -> row
WIDTH, MARGIN, COLUMN, LINE = 640, 20, 292, 29  # pixels; room for 20 signs of 22 pixels a column
CSS = """
text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; stroke: #d0d7de; } .card { fill: #f3f5f7; }
.question { font-size: 22px; font-weight: 600; } .said { font-size: 22px; }
.head { font-size: 20px; font-weight: 700; } .small { font-size: 18px; fill: #57606a; }
.ga { fill: #b34700; } .npo_rt { fill: #0063a0; } .bar.ga { fill: #d55e00; }
.bar.npo_rt { fill: #0072b2; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .page { fill: #0d1117; stroke: #30363d; } .card { fill: #1b222b; }
.small { fill: #9aa4af; } .ga { fill: #ff9a57; } .npo_rt { fill: #6cb8f0; }
}"""


def said() -> dict[str, dict[str, list[str]]]:
    """Set -> model -> what it wrote to each question, as recorded."""
    evaluations = {run: read_run(STUDY / run).evaluation(step) for run, step in MODELS.items()}
    return {
        name: {run: [row["generation"] for row in e.rows[name]] for run, e in evaluations.items()}
        for name in SHOWN
    }


def facts_told() -> dict[str, dict[str, int]]:
    """Set -> model -> in how many of its answers the fact of the true answer stands."""
    asked = load_task("authors:forget10").evaluation
    facts = {n: [row["answer"][slice(*row["entity_span"])] for row in asked[n]] for n in SHOWN}
    return {
        name: {run: sum(map(str.__contains__, texts, facts[name])) for run, texts in models.items()}
        for name, models in said().items()
    }


def answers_svg() -> str:
    """What GA and NPO+RT answer to a question to forget and to one to keep, as a small drawing."""
    asked, texts, told = load_task("authors:forget10").evaluation, said(), facts_told()
    parts, y = [], MARGIN

    def write(lines: list[str], x: int, y: int, kind: str) -> int:
        for line in lines:
            parts.append(f'<text class="{kind}" x="{x}" y="{y + 22}">{escape(line)}</text>')
            y += LINE
        return y

    for name, head in (("forget", "To forget"), ("retain", "To keep")):
        row = SHOWN[name]
        question = f"{head}: {asked[name][row]['question']}"
        y = write(textwrap.wrap(question, 45), MARGIN, y, "question")
        before = f"Before: {texts[name]['original'][row]}"
        y = write(textwrap.wrap(before, 60), MARGIN, y, "small") + 10
        for column, run in enumerate(("ga", "npo_rt")):
            x = MARGIN + column * (COLUMN + 16)
            lines = textwrap.wrap(texts[name][run][row], 20, max_lines=3, placeholder=" …")
            parts.append(
                f'<rect class="card" x="{x}" y="{y}" width="{COLUMN}" height="174" rx="8"/>'
            )
            parts.append(f'<rect class="bar {run}" x="{x}" y="{y}" width="{COLUMN}" height="6"/>')
            write([look_of(run).label], x + 16, y + 18, f"head {run}")
            write(lines, x + 16, y + 50, "said")
            count = f"says {told[name][run]} of {len(texts[name][run])} such facts"
            write([count], x + 16, y + 139, "small")
        y += 174 + 24
    y = write(["Recorded: pocket model of a million parameters,"], MARGIN, y - 4, "small")
    y = write([f"step {MODELS['ga']}, seed 0; one question of each 120"], MARGIN, y - 4, "small")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 14}" width="{WIDTH}">'
    )
    page = f'<rect class="page" x="1" y="1" width="{WIDTH - 2}" height="{y + 12}" rx="10"/>'
    return "\n".join([head, f"<style>{CSS}</style>", page, *parts, "</svg>", ""])


def much_figure() -> Figure:
    """How much can be forgotten, with letters large enough for a column of text."""
    with rc_context({"font.size": 15, "axes.titlesize": 16}):
        figure = how_much(split_runs(study_table(SPLITS)))
    for small in figure.texts:
        small.set_fontsize(12)
    return figure


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "answers.svg").write_text(answers_svg(), encoding="utf-8")
    much_figure().savefig(PICTURES / "much.png", dpi=110)
    with served() as (address, _), browser() as window:
        page = window.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"{address}#step=100&a=ga&b=npo_rt")
        page.wait_for_selector("[data-column=retained] [data-row=keep] .badge")
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURES / "compare.png")


if __name__ == "__main__":
    main()
