"""The page as a person uses it, in headless Chromium: every tab, errors and stopping; nothing asked of other machines."""

import base64
import io
import os
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium): the page is not tried in a browser"
)
PATIENCE = 120_000  # ms, for a machine that is busy with other things


@pytest.fixture(scope="module")
def browser():
    flags = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run")  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(flags))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, page_url, request):
    """The page, open; at the end of a test no error was on the console and no other machine was asked for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    sync_api.expect.set_options(timeout=PATIENCE)
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto(page_url)
    page.wait_for_selector("#write-go")
    yield page
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)
    context.close()
    outside = [url for url in asked if not url.startswith((page_url, "data:", "blob:"))]
    assert outside == []
    assert wrong == []


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def see(page, selector: str):
    return sync_api.expect(page.locator(selector))


def test_write_continues_the_prompt_in_the_browser(page):
    page.fill("#write-prompt textarea", "In the <b>beginning</b>")
    page.click("#write-go")
    see(page, "#write-status").to_have_text(re.compile(r"words in [\d.]+ s, seed \d+"))
    see(page, "#write-output .given").to_have_text("In the <b>beginning</b>")  # as typed, not as markup
    assert page.locator("#write-output .text").inner_text() != ""


def test_the_same_seed_writes_the_same_text_twice(page):
    page.get_by_role("button", name="Sampling").first.click()
    page.get_by_label("Seed").first.fill("5")
    texts = []
    for _ in range(2):
        page.click("#write-go")
        see(page, "#write-status").to_contain_text("seed 5")
        texts.append(page.locator("#write-output .text").inner_text())
        page.click("#write-stop")  # nothing runs: it only clears the line
        see(page, "#write-status").to_contain_text("Stopped")
    assert texts[0] == texts[1] != ""


def test_a_click_on_an_example_fills_the_prompt_and_writes(page):
    page.get_by_role("button", name="In the beginning God created").click()
    see(page, "#write-output .given").to_have_text("In the beginning God created")
    see(page, "#write-prompt textarea").to_have_value("In the beginning God created")
    see(page, "#write-status").to_contain_text("words in")


def test_stop_ends_the_writing_and_the_next_one_starts(page):
    page.get_by_role("button", name="Sampling").first.click()
    page.get_by_label("number input for Length").fill("1000")
    page.get_by_label("Temperature").first.press("Tab")
    page.click("#write-go")
    page.wait_for_selector("#write-output .caret")
    page.click("#write-stop")
    see(page, "#write-status").to_contain_text("Stopped")
    page.wait_for_timeout(1000)  # what was on its way may still arrive
    written = page.locator("#write-output .text").inner_text()
    page.wait_for_timeout(2000)
    assert page.locator("#write-output .text").inner_text() == written
    see(page, "#write-status").to_contain_text("Stopped")
    page.get_by_label("number input for Length").fill("5")
    page.click("#write-go")
    see(page, "#write-status").to_contain_text("words in")


def test_draw_fills_in_and_a_drawing_can_be_kept(page, tmp_path):
    tab(page, "Draw")
    page.fill("#draw-prompt textarea", "a dog")
    page.click("#draw-go")
    see(page, "#draw-output img").to_have_count(4)
    see(page, "#draw-status").to_have_text(re.compile(r"4 drawings in [\d.]+ s"))
    seeds = [
        int(words.removeprefix("seed ")) for words in page.locator("#draw-output figcaption span").all_inner_texts()
    ]
    assert seeds == list(range(seeds[0], seeds[0] + 4))
    with page.expect_download() as download:
        page.locator("#draw-output a").first.click()
    assert download.value.suggested_filename == f"a-dog-{seeds[0]}.png"
    download.value.save_as(tmp_path / "kept.png")
    shown = page.locator("#draw-output img").first.get_attribute("src")
    assert (tmp_path / "kept.png").read_bytes() == base64.b64decode(shown.partition(",")[2])
    with Image.open(tmp_path / "kept.png") as kept:
        assert kept.size == (64, 64)  # 16 pixels, four times as large


def test_draw_says_what_is_missing(page):
    tab(page, "Draw")
    page.fill("#draw-prompt textarea", "  ")
    page.click("#draw-go")
    sync_api.expect(page.get_by_text("The prompt is empty")).to_be_visible()
    page.fill("#draw-prompt textarea", "a cat")
    page.press("#draw-prompt textarea", "Enter")
    see(page, "#draw-status").to_contain_text("drawings in")


def test_classify_ranks_the_names_for_an_example(page):
    tab(page, "Classify")
    page.locator("#classify-tries button").nth(1).click()
    see(page, "#classify-labels textarea").to_have_value(re.compile("hamburger, pizza"))
    see(page, "#classify-output h3").to_have_text(re.compile(r"pizza \([\d.]+%\) ranked \d out of 7 labels"))
    assert page.locator("#classify-output li.right").count() == 1
    assert page.locator("#classify-output li.right .mark").inner_text() == "✓"
    page.click("#classify-output summary")
    see(page, "#classify-output tbody tr").to_have_count(7)


def test_classify_takes_a_picture_of_ones_own(page):
    tab(page, "Classify")
    upload(page, picture(), "mine.png")
    page.fill("#classify-labels textarea", "cat\ndog, sleeping\npizza")
    page.locator("#classify-truth").locator("input, textarea").fill("")
    page.click("#classify-go")
    see(page, "#classify-output summary").to_have_text("All 3 labels")
    assert page.locator("#classify-output .mark").all_inner_texts() == ["", "", ""]


def test_classify_has_a_sentence_for_a_file_that_is_no_picture(page):
    tab(page, "Classify")
    upload(page, b"this is not a picture", "broken.png")
    page.click("#classify-go")
    sync_api.expect(page.get_by_text(re.compile("is not a picture of a known format"))).to_be_visible()
    page.locator("#classify-tries button").first.click()  # and the page goes on
    see(page, "#classify-output h3").to_contain_text("ranked")


def test_about_tells_limits_sources_and_the_models_cards(page):
    tab(page, "About")
    sync_api.expect(page.get_by_text("on photographs it is near chance")).to_be_visible()
    sync_api.expect(page.get_by_role("link", name="OpenMoji")).to_be_visible()
    page.get_by_role("button", name="Write: the model's card").click()
    sync_api.expect(page.get_by_text("It knows nothing.")).to_be_visible()


def test_two_visitors_share_the_models_one_after_the_other(page, browser, page_url):
    other = browser.new_context().new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(page_url)
    other.wait_for_selector("#write-go")
    tab(other, "Draw")
    page.click("#write-go")
    other.click("#draw-go")
    see(page, "#write-status").to_contain_text("words in")
    see(other, "#draw-status").to_contain_text("drawings in")
    other.context.close()


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (300, 120), (30, 90, 200, 128)).save(file, "PNG")
    return file.getvalue()


def upload(page, content: bytes, name: str) -> None:
    """Takes the picture away that is there, and gives another one."""
    page.locator("#classify-picture").get_by_label(re.compile("Clear|Remove")).first.click()
    page.locator("#classify-picture input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": content}
    )
    see(page, "#classify-picture img").to_be_attached()
    page.wait_for_timeout(500)
