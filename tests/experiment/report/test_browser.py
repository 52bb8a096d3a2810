# SPDX-License-Identifier: Apache-2.0
"""The report in a browser: an installed Chromium, headless; nothing is downloaded."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potr.experiment.report.page import write_report
from tests.helpers.report_outputs import HOSTILE, make_outputs

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install .[dev])")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome in PATH")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
DRAWN = "#frame[data-state=ready]"
# By a canvas of its own: a page's canvas that is read again and again makes Chromium warn.
READ_PIXEL = """([id, x, y]) => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  context.drawImage(document.getElementById(id), -x, -y);
  return [...context.getImageData(0, 0, 1, 1).data];
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_report(make_outputs(folder / "outputs"), folder / "report.html", made="2026-11-22", title=HOSTILE)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """The page at desktop size; whatever goes wrong in it during any test fails at the end."""
    with opened_page(browser, report, {"width": 1300, "height": 900}) as page:
        yield page


@pytest.fixture
def page(opened: Any) -> Any:
    """The page as it opens."""
    opened.reload()
    opened.wait_for_selector(DRAWN)
    return opened


class opened_page:  # noqa: N801 - a context manager
    def __init__(self, browser: Any, report: Path, viewport: dict[str, int], **options: Any) -> None:
        self.browser, self.report, self.options = browser, report, {"viewport": viewport, **options}
        self.wrong: list[str] = []

    def __enter__(self) -> Any:
        self.page = self.browser.new_page(**self.options)
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._requested)
        self.page.goto(self.report.as_uri())
        self.page.wait_for_selector(DRAWN)
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.wrong == []

    def _requested(self, request: Any) -> None:
        if request.url != self.report.as_uri() and not request.url.startswith("data:"):
            self.wrong.append(f"asked for {request.url}")


def middle(page: Any, selector: str, number: int = 0) -> tuple[float, float]:
    element = page.locator(selector).nth(number)
    element.scroll_into_view_if_needed()
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def color(page: Any, canvas: str, x: int, y: int) -> list[int]:
    return page.evaluate(READ_PIXEL, [canvas, x, y])[:3]  # type: ignore[no-any-return]


def clip(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.getElementById('right-picture')).clipPath")  # type: ignore[no-any-return]


def test_hostile_names_are_words(page: Any) -> None:
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.title() == HOSTILE
    assert HOSTILE in page.locator("#holes").inner_text()
    assert page.locator("img").count() == 0


def test_a_point_under_the_pointer_tells_its_run(page: Any) -> None:
    tip = page.locator("#plots .tip").first
    assert not tip.is_visible()
    page.mouse.move(*middle(page, "#plots .mark", 0))
    assert tip.is_visible()
    for said in ("default (ours)", "quality 0.1", "8,000 bytes", "310×", "29.38 (−0.63)", "2,000 (20.0 %)", "12.5"):
        assert said in tip.inner_text(), tip.inner_text()
    page.mouse.move(5, 5)
    assert not tip.is_visible()


def test_the_keyboard_reaches_every_run_and_its_pictures(page: Any) -> None:
    page.locator(".plot").first.focus()
    tip = page.locator("#plots .tip").first
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        seen.append(tip.inner_text().splitlines()[:2])
    default, paper = "default (ours)", "paper (ours)"
    assert seen == [[default, "quality 0.1"], [default, "quality 0.5"], [paper, "quality 0.5"], [paper, "quality 0.8"]]
    page.keyboard.press("Enter")
    page.wait_for_selector(DRAWN)
    assert "paper (ours) q0.8" in page.locator("#right option:checked").inner_text()


def test_metric_and_legend_change_the_curves(page: Any) -> None:
    assert page.locator("#metric input[value=lpips]").is_disabled()
    axis = page.locator("#plots .axis").first
    assert axis.text_content() == "PSNR (dB)"
    page.locator("#metric input[value=fps]").check(force=True)
    assert page.locator("#plots .axis").first.text_content() == "FPS (1/s)"
    assert page.locator("#plots .curve").count() == 4
    page.locator("#legend button", has_text="paper").click()
    assert page.locator("#plots .curve").count() == 2
    assert page.locator("#legend button", has_text="paper").get_attribute("aria-pressed") == "false"


def test_the_slider_moves_by_mouse_and_by_keyboard(page: Any) -> None:
    assert clip(page) == "inset(0px 0px 0px 50%)"
    x, y = middle(page, "#divider")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y, steps=3)
    page.mouse.move(x + 100, y, steps=3)
    page.mouse.up()
    width = page.locator("#frame").bounding_box()["width"]
    share = float(page.locator("#slider").input_value())
    assert share == pytest.approx(50 + 100 * 100 / width, abs=0.6)
    assert float(clip(page).split()[3].rstrip("%)")) == pytest.approx(share, abs=0.3)
    page.locator("#slider").focus()
    page.keyboard.press("ArrowLeft")
    assert float(page.locator("#slider").input_value()) == share - 0.5
    page.keyboard.press("Home")
    assert clip(page) == "inset(0px 0px 0px 0%)"


def test_the_drop_downs_choose_scene_view_and_runs(page: Any) -> None:
    first = color(page, "left-picture", 20, 20)
    page.locator("#view").select_option(index=1)
    page.wait_for_selector(DRAWN)
    assert color(page, "left-picture", 20, 20)[0] == pytest.approx(first[0] + 20, abs=3)
    page.locator("#scene").select_option(label="stump")
    page.wait_for_selector(DRAWN)
    assert color(page, "left-picture", 20, 20)[0] == pytest.approx(first[0] + 30, abs=3)
    inside = {}
    for label in ("paper", "default"):
        option = page.locator("#right option", has_text=label).first
        page.locator("#right").select_option(value=option.get_attribute("value"))
        page.wait_for_selector(DRAWN)
        inside[label] = color(page, "right-picture", 200, 115)[0]
        assert label in page.locator("#right-caption").inner_text()
    assert inside["paper"] - inside["default"] == pytest.approx(20, abs=4)
    page.locator("#left").select_option(value="photo")
    page.wait_for_selector(DRAWN)
    assert page.locator("#left-caption").inner_text() == "Photograph"


def test_the_heat_map_shows_where_and_how_much(page: Any) -> None:
    assert not page.locator("#scale").is_visible()
    page.locator("#mode input[value=errors]").check(force=True)
    page.wait_for_selector(DRAWN)
    ticks = page.locator("#ticks span").all_inner_texts()
    assert ticks[0] == "0"
    assert ticks[-1] == "24 or more"  # the square is 20 levels off
    assert "levels of 255" in page.locator("#scale").inner_text()
    assert sum(color(page, "right-picture", 200, 115)) > 400 > 100 > sum(color(page, "right-picture", 30, 30))
    assert sum(color(page, "left-picture", 200, 115)) < 100  # the uncompressed model has no square
    page.locator("#mode input[value=change]").check(force=True)
    page.wait_for_selector(DRAWN)
    assert sum(color(page, "right-picture", 200, 115)) > 400
    page.locator("#mode input[value=pictures]").check(force=True)
    page.wait_for_selector(DRAWN)
    assert not page.locator("#scale").is_visible()


def test_the_detail_follows_the_pointer_until_it_is_pinned(page: Any) -> None:
    lens = "[...['left', 'top', 'width']].map((side) => parseFloat(document.getElementById('lens').style[side]))"
    worst = page.evaluate(lens)
    assert worst[0] + worst[2] / 2 == pytest.approx(100 * 194 / 240, abs=8)  # at the square
    box = page.locator("#frame").bounding_box()
    page.locator("#frame").scroll_into_view_if_needed()
    box = page.locator("#frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.6)
    followed = page.evaluate(lens)
    assert followed[0] + followed[2] / 2 == pytest.approx(30, abs=1)
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.6)
    assert page.locator("#pin").get_attribute("aria-pressed") == "true"
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.3)
    assert page.evaluate(lens) == followed
    page.locator("#lens").focus()
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate(lens)[0] == pytest.approx(followed[0] + 100 * 20 / 240, abs=0.1)
    page.locator("#zoom").select_option("8")
    assert page.evaluate(lens)[2] == pytest.approx(followed[2] / 2, abs=0.1)


def test_the_table_sorts(page: Any) -> None:
    def column(number: int) -> list[str]:
        return page.locator(f"#runs tbody td:nth-child({number})").all_inner_texts()  # type: ignore[no-any-return]

    page.locator("#runs th button", has_text="Size").click()
    sizes = [float(cell) for cell in column(4)]
    assert sizes == sorted(sizes, reverse=True)
    page.locator("#runs th button", has_text="Size").click()
    assert [float(cell) for cell in column(4)] == sorted(sizes)
    assert page.locator("#runs th[aria-sort=ascending]").inner_text().startswith("Size")
    page.locator("#runs-scene").select_option(label="stump")
    assert set(column(1)) == {"stump"}


def test_the_comparison_says_why_a_cell_is_empty(page: Any) -> None:
    assert page.locator("#compared-title").inner_text() == "Bjontegaard differences to codec=paper"
    row = page.locator("#compared tbody tr").first.inner_text().split("\t")
    assert row[:3] == ["garden", "default (ours)", "2"]
    assert row[3] == "—a"
    assert "a: curve has 2 of the 4 points needed." in page.locator("#compared-notes").inner_text()


def test_a_finger_s_first_tap_tells_and_its_second_shows(browser: Any, report: Path) -> None:
    with opened_page(browser, report, {"width": 360, "height": 740}, has_touch=True) as page:
        spot = middle(page, "#plots .mark", 1)
        chosen = page.locator("#right option:checked")
        page.touchscreen.tap(*spot)
        assert "quality 0.5" in page.locator("#plots .tip").first.inner_text()
        assert "q0.1" in chosen.inner_text()
        page.touchscreen.tap(*spot)
        assert "q0.5" in chosen.inner_text()
        page.touchscreen.tap(*middle(page, "#frame"))
        assert page.locator("#pin").inner_text() == "Pinned"


def test_a_phone_s_width_is_enough(browser: Any, report: Path) -> None:
    with opened_page(browser, report, {"width": 360, "height": 740}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.locator("#mode input[value=errors]").check(force=True)
        page.wait_for_selector(DRAWN)
        page.locator(".plot").first.focus()
        page.keyboard.press("ArrowRight")
        tip = page.locator("#plots .tip").first.bounding_box()
        assert tip["x"] >= 0
        assert tip["x"] + tip["width"] <= 360
        assert page.evaluate("document.documentElement.scrollWidth") == 360
