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


def write(page, length: int, seed: int) -> None:
    """Writes with these settings, and waits for the end."""
    page.get_by_role("button", name="Sampling").first.click()
    page.get_by_label("number input for Length").fill(str(length))
    page.get_by_label("Seed").first.fill(str(seed))
    page.keyboard.press("Tab")
    page.click("#write-go")
    see(page, "#write-status").to_contain_text("words in")


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
    page.get_by_label("Seed").first.fill("50")  # which does not come to an end soon
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
    see(page, "#write-output .caret").to_have_count(0)
    page.get_by_label("number input for Length").fill("5")
    page.click("#write-go")
    see(page, "#write-status").to_contain_text("words in")


def test_probabilities_are_shown_at_a_switch_and_what_else_was_likely_where_one_points(page):
    write(page, length=30, seed=5)
    plain = page.locator("#write-output .text").inner_text()
    assert page.locator("#write-output .token").count() == 0
    page.get_by_label("Show probabilities").check()
    see(page, "#write-output .token").not_to_have_count(0)
    assert page.locator("#write-output .text").evaluate("element => element.textContent") == plain
    see(page, "#write-output .legend").to_contain_text("≥ 50%")
    page.locator("#write-output .token").nth(3).hover()
    card = page.locator(".token-card:visible")
    sync_api.expect(card).to_have_text(re.compile(r"log-probability −\d+\.\d\d"))
    assert card.locator(".line").count() >= 5 and card.locator(".chosen").count() == 1
    assert card.locator("button").count() == 0  # it would be in the way of the pointer
    page.mouse.move(5, 5)
    sync_api.expect(card).to_have_count(0)
    page.get_by_label("Show probabilities").uncheck()
    see(page, "#write-output .token").to_have_count(0)
    assert page.locator("#write-output .text").inner_text() == plain


def test_by_keyboard_one_moves_among_the_tokens_and_goes_on_from_another(page):
    page.get_by_label("Show probabilities").check()
    write(page, length=30, seed=5)
    tokens = page.locator("#write-output .token")
    before = "To be, or not to be" + "".join(tokens.evaluate_all("all => all.slice(0, 2).map(t => t.textContent)"))
    assert tokens.evaluate_all("all => all.filter(t => t.tabIndex === 0).length") == 1  # one stop of the Tab key
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    sync_api.expect(tokens.nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".token-card button").first).to_be_focused()
    page.keyboard.press("Escape")
    sync_api.expect(tokens.nth(2)).to_be_focused()
    sync_api.expect(page.locator(".token-card:visible")).to_have_count(0)
    page.keyboard.press("Enter")
    other = page.locator(".token-card button code").first.inner_text().translate(str.maketrans("␣↵⇥", " \n\t"))
    page.keyboard.press("Enter")
    see(page, "#write-output .given").to_have_text(before + other, use_inner_text=False)
    see(page, "#write-prompt textarea").to_have_value(before + other)
    see(page, "#write-status").to_contain_text("words in")


def test_one_of_several_candidates_becomes_part_of_the_text_and_one_writes_on(page):
    page.get_by_label("number input for Candidates").fill("3")
    write(page, length=12, seed=5)
    see(page, "#write-status").to_contain_text("seeds 5 to 7")
    articles = page.locator("#write-output article")
    sync_api.expect(articles).to_have_count(3)
    assert all("perplexity" in told for told in articles.locator(".foot").all_inner_texts())
    chosen = articles.nth(1).locator(".text").evaluate("element => element.textContent")
    articles.nth(1).get_by_role("button", name="Add to the text").click()
    see(page, "#write-prompt textarea").to_have_value("To be, or not to be" + chosen)
    see(page, "#write-go").to_be_focused()
    page.keyboard.press("Enter")
    sync_api.expect(articles).to_have_count(3)


def test_few_shot_shows_the_very_prompt_while_it_is_written_and_answers_it(page):
    tab(page, "Few-shot")
    page.fill("#fewshot-description textarea", "In French:")
    page.fill("#fewshot-query textarea", "a <b>pear</b>")
    page.click("#fewshot-more")
    for column, words in enumerate(("bee", "abeille")):
        page.get_by_test_id(f"cell-3-{column}").dblclick()
        page.locator(f"[data-testid=cell-3-{column}] textarea").fill(words)
        page.keyboard.press("Enter")
    pairs = ("sea otter => loutre de mer", "red apple => pomme rouge", "blue book => livre bleu", "bee => abeille")
    see(page, "#fewshot-prompt").to_contain_text("of the 64 tokens that the model reads")
    see(page, "#fewshot-prompt pre").to_contain_text("bee")
    left_out = int(re.search(r"first (\d) left out", page.locator("#fewshot-prompt p").inner_text())[1])
    lines = ["In French:", *pairs[left_out:], "a <b>pear</b> =>"]
    assert page.locator("#fewshot-prompt pre").inner_text().splitlines() == lines
    page.click("#fewshot-go")
    see(page, "#fewshot-status").to_contain_text("tokens in")
    page.fill("#fewshot-choices textarea", "pain, poire, <i>pomme</i>")
    page.click("#fewshot-go")
    see(page, "#fewshot-output .ranking li").to_have_count(3)
    sync_api.expect(page.get_by_text("<i>pomme</i>").first).to_be_visible()
    page.get_by_role("button", name="Sentiment").click()
    see(page, "#fewshot-query textarea").to_have_value("The daughter was virtuous.")
    page.fill("#fewshot-query textarea", " ")
    see(page, "#fewshot-prompt").to_contain_text("No prompt yet: the query is empty")


def test_score_colours_a_text_as_it_is_and_tells_the_likelier_of_two(page):
    tab(page, "Score")
    odd = "</span><script>alert('x')</script> \"it's\" & 😀\n"
    page.fill("#score-text textarea", odd)
    page.click("#score-go")
    see(page, "#score-output .token.part").to_have_count(3)
    assert page.locator("#score-output .tokens").evaluate("element => element.textContent") == odd
    see(page, "#score-output .figures").to_contain_text("bits a byte")
    page.locator("#score-output .token").first.click()
    sync_api.expect(page.locator(".token-card:visible .line").first).to_be_visible()
    assert page.locator(".token-card button").count() == 0  # there is nothing to go on from
    page.get_by_role("button", name="which was said?").click()
    see(page, "#score-output .verdict").to_have_text(re.compile(r"is the likelier, by [\d.]+ bits"))
    see(page, "#score-output .figures").to_have_count(2)
    page.fill("#score-text textarea", "")
    page.click("#score-go")
    sync_api.expect(page.get_by_text("The text is empty")).to_be_visible()
    assert "Error" not in page.locator("#score-status").inner_text()  # it would lie over the line


def test_on_a_phone_a_tap_shows_a_token_and_nothing_is_wider_than_the_screen(browser, page_url):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(page_url)
    page.get_by_label("Show probabilities").check()
    write(page, length=60, seed=1)
    for place in (0, 25, 50):
        page.locator("#write-output .token").nth(place).tap()
        box = page.locator(".token-card:visible").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        page.locator("h1").tap()
        sync_api.expect(page.locator(".token-card:visible")).to_have_count(0)
    for name, selector in (("Few-shot", "#fewshot-go"), ("Score", "#score-go")):
        tab(page, name)
        page.locator(selector).tap()
        see(page, selector.replace("go", "status")).to_contain_text(" in ")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


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


def test_classify_shows_what_the_first_name_depends_on(page):
    tab(page, "Classify")
    page.click("#classify-go")
    see(page, "#classify-output .depends figcaption").to_contain_text("depends on: red places speak for it")


def test_classify_takes_several_pictures_at_once_and_names_the_one_that_is_none(page):
    tab(page, "Classify")
    page.get_by_role("button", name="Several pictures at once").click()
    files = [{"name": f"{name}.png", "mimeType": "image/png", "buffer": picture()} for name in ("one", "two")]
    files.append({"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.locator("#classify-files input[type=file]").set_input_files(files)
    see(page, "#classify-files").to_contain_text("broken")
    page.click("#classify-many")
    see(page, "#classify-status").to_contain_text("3 of 3 pictures")
    see(page, "#classify-output .cards figure").to_have_count(3)
    see(page, "#classify-output .cards").to_contain_text("broken.png is not a picture")


def test_classify_fills_in_the_names_and_sentences_of_a_data_set(page):
    tab(page, "Classify")
    page.locator("#classify-more button").first.click()
    page.click("#classify-set input")
    page.get_by_role("option", name=re.compile("EuroSAT", re.IGNORECASE)).click()
    see(page, "#classify-labels textarea").to_have_value(re.compile("forest"))
    see(page, "#classify-template textarea").to_have_value(re.compile("centered satellite photo"))


def test_search_finds_the_picture_that_it_is_given(page):
    tab(page, "Search")
    see(page, "#search-output").to_contain_text("3 pictures")
    page.click("#search-go")
    sync_api.expect(page.get_by_text("There is nothing to look for")).to_be_visible()
    page.fill("#search-text textarea", "something red")
    page.press("#search-text textarea", "Enter")
    see(page, "#search-status").to_contain_text("the nearest 3 of 3 pictures")
    see(page, "#search-output figure").to_have_count(3)


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
