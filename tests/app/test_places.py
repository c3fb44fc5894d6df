"""Where a browser finds the page: the command at a terminal, the notebook behind a proxy."""

import json
import os
import re
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from browser import free_port
from studies import write_study

from npo_kit.app import places, server, show
from npo_kit.app.places import has_browser, notebook_place, page_address

SCREEN = {"DISPLAY": ":0"}


@pytest.mark.parametrize(
    ("environment", "platform", "terminal", "expected"),
    [
        (SCREEN, "linux", True, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True, True),
        ({}, "darwin", True, True),
        ({}, "win32", True, True),
        ({}, "linux", True, False),
        ({"DISPLAY": ""}, "linux", True, False),
        (SCREEN, "linux", False, False),
        ({}, "darwin", False, False),
        (SCREEN | {"SPACE_ID": "a/b"}, "linux", True, False),
        (SCREEN | {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "linux", True, False),
        ({"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, "darwin", True, False),
        (SCREEN | {"SSH_TTY": "/dev/pts/0"}, "linux", True, False),
        (SCREEN | {"COLAB_RELEASE_TAG": "release-colab"}, "linux", True, False),
        (SCREEN | {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "linux", True, False),
        (SCREEN | {"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"}, "linux", True, False),
        (SCREEN | {"CODESPACES": "true"}, "linux", True, False),
        (SCREEN | {"CI": "true"}, "linux", True, False),
        (SCREEN | {"PYTEST_CURRENT_TEST": "x"}, "linux", True, False),
        (SCREEN | {"SPACE_ID": "", "CI": ""}, "linux", True, True),
    ],
)
def test_the_browser_opens_at_a_terminal_of_ones_own_machine_only(
    environment, platform, terminal, expected
):
    assert has_browser(environment, platform, terminal) is expected


def test_this_test_has_none():
    assert not has_browser(os.environ | SCREEN, "linux", True)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:7860/"),
        ("0.0.0.0", "http://127.0.0.1:7860/"),
        ("192.0.2.7", "http://192.0.2.7:7860/"),
        ("::1", "http://[::1]:7860/"),
    ],
)
def test_the_address_that_is_opened_leads_to_the_page(host, address):
    assert page_address(host, 7860) == address


@pytest.mark.parametrize(
    ("options", "own", "opens"), [({}, True, 1), ({"browser": False}, True, 0), ({}, False, 0)]
)
def test_the_command_opens_it_once_it_is_served(options, own, opens, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(server, "has_browser", lambda *_: own)
    monkeypatch.setattr(places.webbrowser, "open", opened.append)
    serving, port, end = [], free_port(), threading.Event()

    @contextmanager
    def page(folders, config):
        serving.append(config.port)
        yield
        serving.clear()

    class Waits:  # instead of for ever
        def wait(self):
            end.wait(1)
            assert serving == [port]

    monkeypatch.setattr(server, "_page", page)
    monkeypatch.setattr(server, "threading", SimpleNamespace(Event=Waits))
    server.serve(port=port, **options)
    monkeypatch.undo()
    assert opened == [f"http://127.0.0.1:{port}/"] * opens


# --- notebooks ----------------------------------------------------------------------------------


def test_on_one_machine_the_frame_is_of_the_page_itself_and_says_what_to_do_elsewhere():
    place = notebook_place("127.0.0.1", 4321, {})
    assert (place.address, place.proxied) == ("http://127.0.0.1:4321/", False)
    assert "ssh -L 4321:127.0.0.1:4321" in place.advice
    assert "show(port=4321)" in place.advice
    assert "npo-kit page --out page.html" in place.advice
    code = notebook_place("127.0.0.1", 4321, {"VSCODE_PID": "1"})
    assert code.address == place.address
    assert "in the Ports panel of VS Code, forward 4321" in code.advice
    kaggle = notebook_place("127.0.0.1", 4321, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"})
    assert "Kaggle lets no browser reach it. npo-kit page" in kaggle.advice


@pytest.mark.parametrize(
    ("environment", "given", "address"),
    [
        ({"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"}, None, "/user/ada/proxy/4321/"),
        ({"JUPYTERHUB_SERVICE_PREFIX": "/user/ada"}, None, "/user/ada/proxy/4321/"),
        (
            {"VSCODE_PROXY_URI": "https://code.example/proxy/{{port}}"},
            None,
            "https://code.example/proxy/4321/",
        ),
        (
            {"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"},
            "https://lab.example/p/{port}/",
            "https://lab.example/p/4321/",
        ),
    ],
)
def test_where_a_proxy_is_known_the_frame_goes_through_it(environment, given, address):
    place = notebook_place("127.0.0.1", 4321, environment, given)
    assert (place.address, place.proxied) == (address, True)
    assert address in place.advice


def test_the_proxy_of_the_jupyter_server_that_started_the_kernel(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "jpserver-77.json").write_text(json.dumps({"base_url": "/lab/", "pid": 77}))
    started = {"JPY_PARENT_PID": "77"}
    assert not notebook_place("127.0.0.1", 4321, started).proxied  # it has no such proxy
    there = places.find_spec
    monkeypatch.setattr(
        places, "find_spec", lambda name: name == "jupyter_server_proxy" or there(name)
    )
    assert notebook_place("127.0.0.1", 4321, started).address == "/lab/proxy/4321/"
    assert not notebook_place("127.0.0.1", 4321, {"JPY_PARENT_PID": "78"}).proxied
    assert not notebook_place("127.0.0.1", 4321, {}).proxied


@contextmanager
def proxy():
    """A server that passes /user/ada/proxy/PORT/… on to /… at that port, as Jupyter's does."""

    class Passes(BaseHTTPRequestHandler):
        def answer(self):
            found = re.fullmatch(r"/user/ada/proxy/(\d+)/(.*)", self.path)
            if not found:  # the host's own, such as its /favicon.ico
                outside.append(self.path)
                self.send_response(204)
                self.end_headers()
                return
            port, path = found.groups()
            length = int(self.headers.get("content-length") or 0)
            wanted = ("host", "content-type", "content-length", "accept")
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/{path}",
                data=self.rfile.read(length) if length else None,
                headers={n: v for n, v in self.headers.items() if n.lower() in wanted},
                method=self.command,
            )
            try:
                answer = urllib.request.urlopen(asked)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                body = answer.read()
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers.get("content-type", ""))
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST = do_HEAD = answer

        def log_message(self, *_):
            pass

    outside = []
    made = ThreadingHTTPServer(("127.0.0.1", 0), Passes)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}"
        assert set(outside) <= {"/favicon.ico", "/manifest.json"}  # which Gradio names so
    finally:
        made.shutdown()
        made.server_close()


@pytest.mark.parametrize("by", ["prefix", "address"])
@pytest.mark.slow
def test_the_page_works_behind_a_proxy(by, visit, monkeypatch, tmp_path):
    folder = write_study(tmp_path / "collectors")
    with proxy() as address:
        given = None
        if by == "prefix":
            monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
        else:
            given = f"{address}/user/ada/proxy/{{port}}/"
        frame = show(folder, height=700, address=given)
        try:
            start = f"{address}/user/ada/proxy/" if given else "/user/ada/proxy/"
            assert frame.src.startswith(start)
            page = visit(frame.src if given else f"{address}{frame.src}")
            page.wait_for_function(
                "document.querySelector('[data-column=b] .text')?.textContent"
                " === 'forget 0 says at 40'"
            )
            assert f'src="{frame.src}"' in frame._repr_html_()
            assert "jupyter-server-proxy" in frame._repr_html_() or given
            page.context.close()
        finally:
            server._OPEN.close()


@pytest.mark.slow
def test_host_and_port_may_be_chosen_in_a_notebook(tmp_path):
    port = free_port()
    frame = show(write_study(tmp_path / "collectors"), host="0.0.0.0", port=port)
    try:
        assert frame.src == f"http://127.0.0.1:{port}/"
        assert repr(frame).startswith(f"The page is at http://127.0.0.1:{port}/\n")
    finally:
        server._OPEN.close()
