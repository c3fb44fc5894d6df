"""The browser for the tests of the page."""

from urllib.parse import urlsplit

import pytest
from browser import READY, browser, chromium, patient, served


@pytest.fixture(scope="module")
def window():
    chromium()
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def pocket():
    """The recorded study of the kit."""
    with served() as (address, _):
        yield address


@pytest.fixture
def visit(window):
    """Opens an address in a fresh context; afterwards nothing may have gone wrong or abroad."""
    contexts, problems, hosts = [], [], set()

    def opened(address, **options):
        options = {"viewport": {"width": 1280, "height": 900}, "accept_downloads": True} | options
        contexts.append(patient(window.new_context(**options)))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: hosts.add(urlsplit(request.url)))
        page.goto(address)
        page.wait_for_selector(READY)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
    assert {host.hostname for host in hosts if host.scheme.startswith(("http", "ws"))} == {
        "127.0.0.1"
    }
