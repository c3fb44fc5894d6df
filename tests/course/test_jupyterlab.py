"""The widgets moved in JupyterLab, in a real browser: each slider by the keyboard, and Stop."""

import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from subprocess import STDOUT, Popen
from time import monotonic, sleep

import pytest
from browser import PATIENCE, browser, chromium, free_port, patient

from notebooks import FOLDER

SLIDERS = {  # notebook -> how many sliders its widgets have in all
    "00_why_forget": 1,
    "01_forgetting_by_gradient": 1,
    "02_from_dpo_to_npo": 1,
    "03_synthetic_theory": 2,
    "04_measuring_forgetting": 1,
    "05_pocket_tofu": 1,
    "08_tofu_on_gpu": 1,
}
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # every cell is in the page
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
AT_LENGTH = """() => {
    const setup = jupyterapp.shell.currentWidget.model.sharedModel.cells[1];
    setup.setSource(setup.getSource() + "\\nFAST = False");
}"""
RUN_UNTIL = """async (number) => {
    const { content } = jupyterapp.shell.currentWidget;
    content.activeCellIndex = number;
    await jupyterapp.commands.execute("notebook:run-all-above");
    await jupyterapp.commands.execute("notebook:run-cell");
}"""
RUN_FROM = """async (number) => {
    jupyterapp.shell.currentWidget.content.activeCellIndex = number;
    await jupyterapp.commands.execute("notebook:run-all-below");
}"""
SOURCES = "() => jupyterapp.shell.currentWidget.model.sharedModel.cells.map((c) => c.getSource())"
ERRORS = """() => jupyterapp.shell.currentWidget.model.sharedModel.toJSON().cells
    .flatMap((cell) => cell.outputs ?? [])
    .filter((output) => output.output_type === "error" || output.name === "stderr")
    .map((output) => output.evalue ?? output.text)"""
READY = """() => globalThis.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel
    ?.status === "idle" """
SHOWN = """(box) => [...box.querySelectorAll(".widget-html-content")]
    .map((part) => part.innerHTML).join("|")"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab without a token on copies of the notebooks."""
    chromium()
    home, port = tmp_path_factory.mktemp("lab"), free_port()
    notebooks = home / "notebooks"
    shutil.copytree(FOLDER, notebooks, ignore=shutil.ignore_patterns(".*"))
    for name, text in SETTINGS.items():
        path = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": notebooks,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    with running([f"--{name}={value}" for name, value in options.items()], home, port) as address:
        yield address


@contextmanager
def running(options: list[str], home: Path, port: int):
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    own |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    environment = os.environ | {name: str(home / folder) for name, folder in own.items()}
    environment |= {"NPO_KIT_FAST": "1", "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = str(FOLDER.parent)
    log = (home / "log").open("w+")
    process = Popen(
        [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=STDOUT
    )
    address, started = f"http://127.0.0.1:{port}", monotonic()
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (home / "log").read_text()
                assert monotonic() - started < PATIENCE, "JupyterLab did not come up"
                sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)
        log.close()


@contextmanager
def opened(lab: str, stem: str, width: int = 1280):
    """A page with the notebook and its kernel ready, and the browser's complaints so far."""
    with browser() as chrome:
        page = patient(chrome.new_page(viewport={"width": width, "height": 900}))
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type == "error" else None,
        )
        page.goto(f"{lab}/lab/tree/{stem}.ipynb?reset")
        page.wait_for_function(READY)
        yield page, complaints


def run_all(page):
    """Run the notebook; where it trains live, at full length until Stop is pressed, then on."""
    sources = page.evaluate(SOURCES)
    live = [number for number, source in enumerate(sources) if source.endswith("\nlive")]
    if live:
        page.evaluate(AT_LENGTH)
        page.evaluate(RUN_UNTIL, live[0])
        page.get_by_text("step 10: ").wait_for()  # of fifty, with an evaluation
        stop = page.get_by_role("button", name="Stop")
        stop.click()
        page.wait_for_function("button => button.disabled", arg=stop.element_handle())
        bar = page.locator(".widget-vbox .progress-bar")
        assert 20 <= float(bar.evaluate("bar => bar.style.width").rstrip("%")) < 100
    page.evaluate(RUN_FROM, live[0] + 1 if live else 0)


def move(page, slider):
    """Press an arrow key on a slider; whether what is shown under it became something else."""
    box = slider.locator("xpath=ancestor::*[contains(@class, 'widget-vbox')][last()]")
    before, value = box.evaluate(SHOWN), slider.get_attribute("aria-valuenow")
    at_end = value == slider.get_attribute("aria-valuemax")
    slider.focus()
    page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    page.wait_for_function(
        f"([box, before]) => ({SHOWN})(box) !== before", arg=[box.element_handle(), before]
    )
    assert slider.get_attribute("aria-valuenow") != value
    assert before


def told(slider):
    """A slider's name and value, as a screen reader has them."""
    return slider.get_attribute("aria-label"), slider.get_attribute("aria-valuetext")


def shown_beside(slider):
    """The label and the number that are shown beside a slider, such as β and 0.1."""
    box = slider.locator("xpath=ancestor::*[contains(@class, 'npo-kit-slider')]")
    return box.locator("label").inner_text(), box.locator(".widget-readout").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("stem", SLIDERS)
def test_the_widgets_move(lab, stem):
    with opened(lab, stem) as (page, complaints):
        run_all(page)
        assert page.evaluate(ERRORS) == []
        sliders = page.locator(".jp-OutputArea [role=slider]")
        assert sliders.count() == SLIDERS[stem]
        for number in range(SLIDERS[stem]):
            move(page, sliders.nth(number))
            assert told(sliders.nth(number)) == shown_beside(sliders.nth(number))
        assert page.evaluate(ERRORS) == []
        assert complaints == []


def test_every_notebook_with_a_widget_is_moved():
    assert {
        path.stem
        for path in FOLDER.glob("*.ipynb")
        if re.search(r"_widget\(|LiveRun", path.read_text())
    } == set(SLIDERS)
