"""Figures as SVG for notebooks and pages: readable on a light and a dark page, and on a phone.

Text, axes and greys are drawn in the page's own ink (`currentColor`), colours with as much of it
as they need to stand out from either page. `%load_ext npo_kit.svg` makes a notebook show matplotlib
figures so, with their alternative text (`style.described`).
"""

from __future__ import annotations

import hashlib
import io
import re
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree as Xml

from npo_kit.style import alt_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBER = re.compile(r"-?\d+\.\d+")
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_PIXELS = 115  # of an inch of a figure, at most: letters of 12 points are 19 pixels high
FONT = "DejaVu Sans, Verdana, sans-serif"  # matplotlib measures the first; the second is as wide
LIGHT, DARK = ("#ffffff", "#222222"), ("#1e1e1e", "#d4d4d4")  # a page and the ink on it
LINE, TEXT = 3.0, 4.5  # the least contrast of WCAG 2.2
LEAST_GREY = 67  # per cent of the ink, in which text is readable
# Only for an image of its own, where there is no ink to inherit; inside a page nothing matches.
ALONE = "".join(
    f"{start}svg:root{{background:{page};color:{ink}}}{end}"
    for (page, ink), start, end in (
        (LIGHT, "", ""),
        (DARK, "@media(prefers-color-scheme:dark){", "}"),
    )
)
# A notebook that is not trusted runs no script and shows no SVG but as an image, which has its own
# ground. Where scripts run, the drawing itself takes the image's place, and the ink of the page.
_UNPACK = """<script>document.querySelectorAll("img.npo-kit-figure").forEach((image) => {
const drawn = decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
image.replaceWith(document.createRange().createContextualFragment(drawn)); });</script>"""


def load_ipython_extension(shell: Any) -> None:
    """Show matplotlib's figures in a notebook as SVG: what `%load_ext npo_kit.svg` calls."""
    from matplotlib.figure import Figure
    from matplotlib_inline.config import InlineBackend

    InlineBackend.instance(parent=shell).figure_formats = set()  # no PNG beside it
    formatters = shell.display_formatter.formatters
    formatters["text/html"].for_type(Figure, _shown)
    formatters["text/plain"].for_type(
        Figure, lambda figure, printer, _: printer.text(alt_text(figure))
    )


def _shown(figure: Figure) -> str:
    return embedded(svg(figure), alt_text(figure), _width(figure))


def embedded(drawn: str, alt: str, width: float) -> str:
    """Return HTML with an SVG of at most `width` pixels, for outputs of notebooks, trusted or not.

    The SVG should contain the rule ALONE, which gives it a ground and an ink where it is an image.
    """
    source = quote(drawn, safe=" '()*,-./:;=_!~+")
    return (
        f'<img class="npo-kit-figure" alt="{escape(alt)}" '
        f'style="width:100%;max-width:{width:.0f}px" src="data:image/svg+xml,{source}">{_UNPACK}'
    )


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element with its alternative text, the same from run to run."""
    from matplotlib import rc_context

    out = io.BytesIO()
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "npo_kit", "path.simplify_threshold": 0.4}
    ):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    root, inks = Xml.fromstring(out.getvalue()), _Inks()
    _clear(root)
    for element in root.iter():
        _restyle(element, inks)
    _share_styles(root)
    rule = Xml.Element("style")
    rule.text = ALONE
    root.insert(0, rule)
    root.attrib = {
        "xmlns": _SVG[1:-1],
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": alt_text(figure),
        "fill": "currentColor",
        "font-family": FONT,
        "style": f"width:100%;max-width:{_width(figure):.0f}px;height:auto;stroke-linejoin:round"
        + inks.declared(),
    }
    return _own_names(Xml.tostring(root, encoding="unicode"))


def _width(figure: Figure) -> float:
    """Return the pixels that a figure is wide where there is room."""
    return figure.get_figwidth() * _PIXELS


def _clear(root: Xml.Element) -> None:
    """Take out metadata, matplotlib's rules for the whole page, and what is not painted."""
    for parent in list(root.iter()):
        for child in list(parent):
            look = child.get("style", "")
            unpainted = "fill: none" in look and "stroke" not in look
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style") or unpainted:
                parent.remove(child)
            child.tail = None


def _restyle(element: Xml.Element, inks: _Inks) -> None:
    """Give an element its inks, and short coordinates."""
    element.tag = element.tag.removeprefix(_SVG)
    if element.text and not element.text.strip():
        element.text = None
    if _LINK in element.attrib:
        element.set("href", element.attrib.pop(_LINK))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for name in {"x", "y", "width", "height", "transform"} & set(element.attrib):
        element.set(name, _NUMBER.sub(lambda n: _short(float(n[0])), element.attrib[name]))
    if "d" in element.attrib:
        element.set("d", _path(element.attrib["d"]))
    look = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if part)
    look.pop("font-family", None)
    for name in ("fill", "stroke"):
        if name in element.attrib:
            look[name] = element.attrib.pop(name)
        if look.get(name, "").startswith("#"):
            look[name] = inks.of(look[name], TEXT if element.tag == "text" else LINE)
    if look:
        element.set("style", ";".join(f"{name}:{value}" for name, value in look.items()))


def _path(d: str) -> str:
    """Write a path of matplotlib's, `M x y L x y ...`, with what lies between two points."""
    written, last, start, here = "", "", (0, 0), (0, 0)  # in tenths: rounding does not add up
    for command, given in re.findall(r"([MLQCz])([^MLQCz]*)", d):
        there = [round(10 * float(number)) for number in given.split()]
        steps = [_short((n - here[i % 2]) / 10) for i, n in enumerate(there)]
        written += (" " if command == last == "L" else command.lower()) + " ".join(steps)
        here = (there[-2], there[-1]) if there else start
        start, last = here if command == "M" else start, command
    return ("M" + written[1:]).replace(" -", "-")


def _short(number: float) -> str:
    """Write a coordinate in points to a tenth."""
    return re.sub(r"^(-?)0\.(?=.)", r"\1.", f"{number:.1f}".removesuffix(".0"))


def _share_styles(root: Xml.Element) -> None:
    """Write the look of a line's markers once for their group."""
    for group in root.iter("g"):
        looks = {(part.tag, part.get("style", "")) for part in group}
        if len(group) > 1 and len(looks) == 1 and (look := looks.pop())[0] == "use":
            group.set("style", look[1])
            for part in group:
                del part.attrib["style"]


def _own_names(drawn: str) -> str:
    """Drop names that nothing refers to; give the others a prefix that is the figure's own."""
    digest = hashlib.sha256(drawn.encode()).hexdigest()[:6]
    used = dict.fromkeys(re.findall(r'(?:url\(|href=")#([\w-]+)', drawn))
    names = {old: f"f{digest}-{number}" for number, old in enumerate(used)}
    drawn = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", drawn
    )
    return re.sub(r'((?:url\(|href=")#)([\w-]+)', lambda m: m[1] + names[m[2]], drawn)


# --- ink ----------------------------------------------------------------------------------------


class _Inks:
    """The colours of a figure as CSS variables, each with the share of ink that it needs."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # CSS colour -> variable

    def of(self, colour: str, least: float) -> str:
        """Return CSS for a colour with at least that contrast; for a grey, as much of the ink."""
        red, green, blue = bytes.fromhex(colour[1:])
        if red == green == blue:
            share = max(round((255 - red) / 2.55), LEAST_GREY if least == TEXT else 0)
            css = f"color-mix(in srgb,currentColor {share}%,transparent)"
            css = {0: "none", 100: "currentColor"}.get(share, css)
        else:
            css = f"color-mix(in srgb,{colour},currentColor {ink_share(colour, least)}%)"
        if "(" not in css:
            return css
        return f"var({self._names.setdefault(css, f'--c{len(self._names)}')})"

    def declared(self) -> str:
        return "".join(f";{name}:{css}" for css, name in self._names.items())


def ink_share(colour: str, least: float) -> int:
    """Return the least percentage of ink with which a colour stands out from both pages."""
    for share in range(0, 100, 2):
        if all(contrast(mixed(colour, ink, share), page) >= least for page, ink in (LIGHT, DARK)):
            return share
    return 100


def mixed(colour: str, ink: str, share: float) -> str:
    """Return a colour, #rrggbb, with a percentage of ink, as CSS mixes them in sRGB."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(ink[1:]), strict=True)
    return "#" + bytes(round(a + (b - a) * share / 100) for a, b in pairs).hex()


def contrast(colour: str, page: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    light = [0.05 + _luminance(each) for each in (colour, page)]
    return max(light) / min(light)


def _luminance(colour: str) -> float:
    parts = (part / 255 for part in bytes.fromhex(colour[1:]))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
