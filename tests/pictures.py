"""Makes README's picture anew from the page in a real browser: python tests/pictures.py."""

from browser import ROOT, browser, served

PICTURE = ROOT / "data" / "pictures" / "dashboard.png"


def main() -> None:
    with served() as (address, _, _), browser() as window:
        page = window.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address + "#q=1&step=100&a=ga&b=npo_rt&set=forget")
        page.wait_for_selector("[data-column=b] mark, [data-column=b] .badges")
        page.wait_for_selector("[data-chart] svg")
        page.wait_for_function("!document.querySelector('[data-column=b] .text.none')")
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE, full_page=True)


if __name__ == "__main__":
    main()
