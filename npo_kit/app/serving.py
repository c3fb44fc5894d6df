"""The page inside Gradio: its scripts, the requests that are let through, its preview."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from npo_kit.app.answering import told
from npo_kit.app.page import Answers
from npo_kit.app.scripts import scripts, static_text, styles
from npo_kit.data.shipped import shipped_data

TITLE = "npo_kit"
HEADLINE = "npo_kit: see a language model unlearn"
SENTENCE = (
    "See what a language model answers while it unlearns, by gradient ascent and by Negative "
    "Preference Optimization side by side: recorded studies, and runs of your own."
)
PICTURE = "/preview.png"
# Gradio asks for the last one when it is launched
PAGE_PATHS = ("/", PICTURE, "/theme.css", "/favicon.ico", "/gradio_api/startup-events")
PAGE_FOLDERS = ("/assets/", "/static/")
ASK_PATH, ASK_LENGTH = "/gradio_api/component_server/", 1 << 16  # bytes of a question
_PREVIEWS = re.compile(
    rb'<meta\s+(?:property="og:|name="(?:twitter:|description"))[^>]*>|<title>[^<]*</title>'
)


class OnlyThePage:
    """Middleware that lets through what the page asks for; Gradio's other routes are not there.

    No one can upload files, or send more than a question needs.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self.app
        if scope["type"] == "http":
            if not _asked_by_page(scope):
                answer = PlainTextResponse("not found", 404)
            elif _path(scope) == PICTURE:
                answer = FileResponse(shipped_data("pictures/compare.png"))
            elif _path(scope) == "/":
                send = _with_preview(send, f"{str(Request(scope).base_url).rstrip('/')}{PICTURE}")
        elif scope["type"] == "websocket":
            answer = WebSocketClose()
        await answer(scope, receive, send)


def _path(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _asked_by_page(scope: Scope) -> bool:
    """Tell whether a request is the page's own: for its files, or a question in JSON."""
    path = _path(scope)
    if scope["method"] in ("GET", "HEAD"):
        return path in PAGE_PATHS or path.startswith(PAGE_FOLDERS)
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    return (
        (scope["method"], path) == ("POST", ASK_PATH)
        and headers.get("content-type") == "application/json"
        and length.isdecimal()
        and int(length) <= ASK_LENGTH
    )


def _with_preview(send: Send, picture: str) -> Send:
    """Return a `send` that puts the page's own preview into the HTML, in place of Gradio's."""
    start: Message = {}
    html = b""

    async def sent(message: Message) -> None:
        nonlocal start, html
        if message["type"] == "http.response.start":
            start = message
            return
        html += message.get("body", b"")
        if message.get("more_body"):
            return
        page = previewed(html, picture)
        MutableHeaders(scope=start)["content-length"] = str(len(page))
        await send(start)
        await send({"type": "http.response.body", "body": page})

    return sent


def previewed(html: bytes, picture: str) -> bytes:
    """Return a page with the title, sentence and picture that a link to it is shown with."""
    head, script, rest = html.partition(b"<script")
    names = {"description": SENTENCE, "twitter:card": "summary_large_image"}
    properties = {"type": "website", "title": HEADLINE, "description": SENTENCE, "image": picture}
    tags = [f"<title>{TITLE}</title>"]
    tags += [f'<meta name="{name}" content="{escape(text)}">' for name, text in names.items()]
    tags += [f'<meta property="og:{p}" content="{escape(text)}">' for p, text in properties.items()]
    return _PREVIEWS.sub(b"", head) + "\n".join([*tags, ""]).encode() + script + rest


@contextmanager
def served(answers: Answers, host: str, port: int, root: str = "") -> Iterator[None]:
    """Serve the page over `answers` from a thread for as long as the block lasts.

    `root` is its address for browsers, a URL or a path, where that is not the host and port. Gradio
    calls no other machine, and the environment stays as it was.
    """
    telemetry = os.environ.get("HF_HUB_DISABLE_TELEMETRY")
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.HTML(
            html_template=static_text("page.html"),
            js_on_load=scripts(),
            server_functions=[told(getattr(answers, name)) for name in Answers.NAMES],
            apply_default_css=False,
        )
    os.environ.pop("HF_HUB_DISABLE_TELEMETRY", None)  # set by Blocks
    if telemetry is not None:
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = telemetry
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            root_path=root.rstrip("/") or None,
            css=styles(),
            quiet=True,
            inline=False,
            share=False,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            app_kwargs={"middleware": [Middleware(OnlyThePage)]},
        )
        yield
    finally:
        blocks.close(verbose=False)
