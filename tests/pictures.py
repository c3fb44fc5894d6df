"""Makes README's pictures anew from the page in a real browser: python tests/pictures.py."""

from browser import browser, served
from places import ROOT

PICTURES = ROOT / "data" / "pictures"
SHOWN = {  # file -> address of what it shows, and what must be there before it is taken
    "compare.png": (
        "q=1&step=100&a=ga&b=npo_rt",
        "document.querySelector('[data-column=b] .scores div')",
    ),
    "tradeoff.png": (
        "view=tradeoff&step=30&a=ga&b=npo_rt&lesson=0",
        "document.querySelector('[data-gap=npo_rt]')",
    ),
}


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with served() as (address, _, _), browser() as window:
        for name, (fragment, ready) in SHOWN.items():
            page = window.new_page(viewport={"width": 1280, "height": 860})
            page.goto(f"{address}#{fragment}")
            page.wait_for_function(ready)
            page.wait_for_timeout(500)
            page.screenshot(path=PICTURES / name)


if __name__ == "__main__":
    main()
