"""A served page and a real browser for the tests of it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from places import ROOT

from npo_kit.app import server

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

READY = "[role=tab][aria-selected=true]"  # when the page has opened a study
PATIENCE = 1800.0  # seconds until what never comes is given up, on a machine however busy

# The words of charts that reach beyond their chart.
OUTSIDE = """(all) => all.filter((text) => {
  const [own, chart] = [text, text.ownerSVGElement].map((each) => each.getBoundingClientRect());
  return own.left < chart.left - 1 || own.right > chart.right + 1
    || own.top < chart.top - 1 || own.bottom > chart.bottom + 1;
}).map((text) => text.textContent)"""


def chromium():
    """The path of the system's Chromium; skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: install the system's package chromium")
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def served(*arguments, cwd=ROOT, command=(sys.executable, "app.py")):
    """(address, process) of the page, served by its command."""
    port, started = free_port(), time.monotonic()
    process = subprocess.Popen(
        [*command, *map(str, arguments), "--port", str(port)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(cwd)} if cwd == ROOT else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() - started < PATIENCE, "the page did not come up"
                time.sleep(0.1)
        yield address, process
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


@contextmanager
def served_here(*folders):
    """The address of the page of some folders, served by a thread of this process."""
    port = free_port()
    with server._page(folders, server.PageConfig(port)):
        yield f"http://127.0.0.1:{port}/"


def patient(opened):
    """A page or a context of a browser that waits for as long as it takes."""
    opened.set_default_timeout(PATIENCE * 1000)
    return opened


@contextmanager
def browser():
    """A Chromium that never leaves this machine."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield made
        made.close()


def press(page, key):
    """A key with nothing in focus."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(key)


def address_of(page):
    return dict(re.findall(r"(\w+)=([^&]*)", urlsplit(page.url).fragment))


def wait_text(page, column, text, row="forget"):
    """Waits until a column of Compare says a text in one of its rows."""
    page.wait_for_function(
        "([column, row, text]) => document.querySelector("
        "`[data-column=${column}] [data-row=${row}] .text`).textContent === text",
        arg=[column, row, text],
    )
