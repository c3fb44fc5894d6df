"""Where a browser finds the page: on one's own machine, from a notebook, behind a proxy."""

from __future__ import annotations

import json
import sys
import threading
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # hosts that listen at every address
# Set where the browser is on another machine, or where nobody looks.
ELSEWHERE = (
    *("SPACE_ID", "SSH_CONNECTION", "SSH_TTY", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"),
    *("JUPYTERHUB_SERVICE_PREFIX", "CODESPACES", "CI", "PYTEST_CURRENT_TEST"),
)
_TO_FILE = "npo-kit page --out page.html writes the recorded page to a file that needs no server."


# --- the command --------------------------------------------------------------------------------


def has_browser(environment: Mapping[str, str], platform: str, terminal: bool) -> bool:
    """Tell whether a command runs at a terminal of one's own machine, with a screen.

    `terminal`: whether what it prints is seen in one. `platform` is that of `sys`.
    """
    if not terminal or any(environment.get(name) for name in ELSEWHERE):
        return False
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return platform != "linux" or any(environment.get(name) for name in screens)


def page_address(host: str, port: int) -> str:
    """Return the address of the page for a browser on this machine."""
    shown = "127.0.0.1" if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def open_browser(address: str) -> None:
    """Open an address in the browser, without waiting for it."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


# --- the notebook -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """The page in a frame of a notebook, with a line that says where it is and what to do."""

    src: str
    height: int  # pixels
    advice: str

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{escape(self.src)}" width="100%" height="{self.height}" '
            'style="border: 0" allow="clipboard-write" title="npo_kit"></iframe>'
            f"<p><small>{escape(self.advice)}</small></p>"
        )

    def __repr__(self) -> str:
        return f"The page is at {self.src}\n{self.advice}"


@dataclass(frozen=True)
class Place:
    """Where a notebook's browser finds the page."""

    address: str  # a URL, or a path of the server that the notebook came from
    advice: str
    proxied: bool  # a proxy stands between them, so that the page has another address than its own


def notebook_place(
    host: str, port: int, environment: Mapping[str, str], given: str | None = None
) -> Place:
    """Return where the page at a port of the kernel's machine is for the browser.

    That is what was `given`, with `{port}` for the port; else the proxy of a JupyterHub or Binder,
    of code-server, or of the Jupyter server that started the kernel, if they have one; else the
    machine itself, as where both are the same.
    """
    own = f"The page is at port {port} of the kernel's machine, shown at"
    if given is not None:
        address = given.replace("{port}", str(port))
        return Place(address, f"{own} {address}, as you said.", True)
    template = environment.get("VSCODE_PROXY_URI", "")
    prefix = environment.get("JUPYTERHUB_SERVICE_PREFIX") or _proxying_server(environment)
    if template.startswith("http"):
        address = template.replace("{{port}}", str(port)).rstrip("/") + "/"
        return Place(address, f"{own} {address} by code-server's proxy. {_TO_FILE}", True)
    if prefix:
        address = f"{prefix.rstrip('/')}/proxy/{port}/"
        missing = "pip install jupyter-server-proxy beside Jupyter and restart its server"
        advice = f"Nothing above? Then the server has no proxy: {missing}. {_TO_FILE}"
        return Place(address, f"{own} {address} by Jupyter's proxy. {advice}", True)
    address = page_address(host, port)
    return Place(address, f"The page is at {address}. {_where_else(port, environment)}", False)


def _where_else(port: int, environment: Mapping[str, str]) -> str:
    """Return what to do where the kernel is on another machine than the browser."""
    if environment.get("KAGGLE_KERNEL_RUN_TYPE"):
        return f"Kaggle lets no browser reach it. {_TO_FILE}"
    forward = f"ssh -L {port}:127.0.0.1:{port} MACHINE"
    if any(name.startswith("VSCODE_") for name in environment):
        forward = f"in the Ports panel of VS Code, forward {port}"
    return (
        "Nothing above? Then the kernel is on another machine than your browser. Forward the port "
        f"({forward}) and run the cell again with show(port={port}), or, where a proxy leads to "
        f"the kernel's ports, with show(address='https://…/{{port}}/'). {_TO_FILE}"
    )


def _proxying_server(environment: Mapping[str, str]) -> str | None:
    """Return the base path of the Jupyter server that started this kernel, if it has a proxy."""
    if find_spec("jupyter_server_proxy") is None or find_spec("jupyter_core") is None:
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    about = Path(jupyter_runtime_dir(), f"jpserver-{environment.get('JPY_PARENT_PID')}.json")
    try:
        return json.loads(about.read_text(encoding="utf-8"))["base_url"]
    except (OSError, ValueError, KeyError):  # started by something else, such as VS Code
        return None


def in_colab() -> bool:
    """Tell whether this is a notebook of Colab, which has a frame of its own."""
    return "google.colab" in sys.modules
