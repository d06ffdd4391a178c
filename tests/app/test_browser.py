"""The app in a real browser: what is dropped, trained and moved is seen, hostile names are names, nothing gets out."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'histcxr[dev]'")


@pytest.fixture(scope="module")
def app(start):
    one = start("--max-upload", "1")
    yield one
    code, said = one.end()
    assert code == 130
    assert "Traceback" not in said
    assert list(one.temporary.glob("histcxr-*")) == []  # with all that was dropped
    assert list(one.home.rglob("*")) == []


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        one = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def page(browser):
    """A page at which any request to another machine, any dialog and any error of the app fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 1600}, accept_downloads=True)
    one = context.new_page()
    one.set_default_timeout(60_000)
    asked, dialogs = [], []
    one.on("request", lambda request: asked.append(request.url))
    one.on("websocket", lambda socket: asked.append(socket.url))
    one.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield one
    assert dialogs == []
    assert one.get_by_test_id("stException").count() == 0
    context.close()
    own = re.compile(r"(https?|wss?)://127\.0\.0\.1:\d+/|(data|blob):")
    assert asked
    assert [url for url in asked if not own.match(url)] == []


def dropped(name, content):
    return {"name": name, "mimeType": "image/png", "buffer": content}


def fill(page, label, text):
    page.get_by_label(label).fill(text)
    page.get_by_label(label).press("Tab")


def judged(page):
    page.get_by_role("button", name="Judge").click()
    page.get_by_text("Look at").wait_for()


@pytest.fixture(scope="module")
def phantom():
    return bytes(encode_image(make_phantom(3, sick=True, size=(224, 224)).image))


def test_a_phantom_is_dropped_and_its_drawer_read(app, page, phantom, tmp_path):
    import histcxr

    page.goto(app.url)
    page.locator("input[type=file]").set_input_files([dropped("one.png", phantom)])
    page.get_by_text("one.png").wait_for()
    judged(page)
    (tmp_path / "one.png").write_bytes(phantom)
    histcxr.triage(tmp_path / "one.png", histcxr.load_model(), tmp_path / "w.csv")
    _, row = (tmp_path / "w.csv").read_text().splitlines()
    name, _, drawer, score = row.split(",")[:4]
    page.get_by_role("heading", name=f"{drawer}, score {score}").wait_for()
    page.get_by_test_id("stDataFrame").locator("td").get_by_text(score).wait_for(state="attached")
    for shows in (
        "the radiograph with its lungs outlined",
        "grey levels of the lungs against normal patients",
    ):
        picture = page.get_by_role("img", name=shows)
        picture.wait_for()
        assert picture.evaluate("one => one.complete && one.naturalWidth > 100")
    with page.expect_download() as got:
        page.get_by_role("button", name="Download worklist.csv").click()
    assert Path(got.value.path()).read_text().splitlines()[1] == row
    assert name == "one.png"


def test_train_and_move_the_threshold(app, page, phantoms):
    study = phantoms.study(n_patients=100, size=(64, 64), mask_size=(64, 64), repeats=0)
    page.goto(app.url + "train")
    fill(page, "Labelled radiographs", str(study))
    page.get_by_label("Classifiers").click()
    page.keyboard.press("Backspace")
    page.keyboard.type("svm")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Train", exact=True).click()
    matrix = page.get_by_role("img", name="normal called normal")
    matrix.wait_for()
    page.get_by_role("heading", name="svm").wait_for()
    seen = [matrix.get_attribute("alt")]
    slider = page.get_by_role("slider")
    for key in ("Home", "End"):
        slider.focus()
        page.keyboard.press(key)
        page.wait_for_function(
            "old => ![...document.querySelectorAll('img')].some(one => one.alt === old)", arg=seen[-1]
        )
        seen.append(matrix.get_attribute("alt"))
    sick = int(re.search(r"(\d+) sick called sick", seen[1])[1])
    assert re.match(r"\d normal called normal", seen[1])
    assert (
        f"{sick} sick called normal" in seen[2] or int(re.search(r"(\d+) sick called normal", seen[2])[1]) > 0
    )


def assert_plain(page):
    """Nothing on the page was made by Markdown, HTML or a shortcode."""
    for marked in ("strong", "em", "code", ".katex", "a[href]:not([href^='#'])", "img[src=x]"):
        assert page.get_by_test_id("stMain").locator(marked).count() == 0, marked
    broken = "[...document.querySelectorAll('img')].filter(one => one.complete && !one.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert "home" not in page.get_by_test_id("stIconMaterial").all_inner_texts()
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in page.inner_text("body")


def test_hostile_labels_and_sources_are_cells(app, page, hostile, hostile_list):
    page.goto(app.url + "explore")
    fill(page, "Radiographs", str(hostile_list))
    page.get_by_role("button", name="Explore", exact=True).click()
    page.get_by_text("Examples, and").wait_for()
    page.get_by_test_id("stText").filter(has_text=hostile[0]).last.wait_for()
    cells = page.get_by_test_id("stDataFrame").first.locator("td")
    cells.first.wait_for(state="attached")
    assert {hostile[0], hostile[1]} <= {one.strip() for one in cells.all_text_contents()}
    assert_plain(page)


def test_hostile_names_are_names(app, page, phantom, hostile, tmp_path):
    page.goto(app.url)
    page.locator("input[type=file]").set_input_files([dropped(hostile[0], phantom), dropped(hostile[1], b"")])
    judged(page)
    texts = page.get_by_test_id("stText")
    assert page.get_by_label("Look at").count() == 1
    for name in hostile[:2]:
        page.get_by_label("Look at").click()
        page.get_by_role("option").filter(has_text=name).click()
        texts.filter(has_text=name).first.wait_for()
        assert name in texts.all_inner_texts()
    assert_plain(page)
    place = tmp_path / "in"
    for number, name in enumerate(hostile[2:]):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(phantom if number == 0 else b"")
    page.goto(app.url)
    fill(page, "Or a folder", str(place))
    judged(page)
    texts.filter(has_text=hostile[2]).first.wait_for()
    assert_plain(page)
    for width in (1280, 390):  # nothing is cut off
        page.set_viewport_size({"width": width, "height": 900})
        wide = "width => document.querySelector('[data-testid=stMain]').scrollWidth <= width"
        page.wait_for_function(wide, arg=width, timeout=20_000)


def test_what_is_too_large_is_refused_by_page_and_server(app, page, phantom):
    large = np.random.default_rng(0).bytes(1_200_000)
    page.goto(app.url)
    with page.expect_request(lambda request: request.method == "PUT") as sent:
        page.locator("input[type=file]").set_input_files([dropped("small.png", phantom)])
    page.locator("input[type=file]").set_input_files([dropped("large.png", large)])
    page.get_by_text("1.0MB or smaller", exact=False).or_(page.get_by_text("1MB or smaller")).wait_for()
    put = """async ([url, size, name, xsrf]) => {
        const form = new FormData()
        form.append("file", new File([new Uint8Array(size)], name))
        const token = document.cookie.match(/_streamlit_xsrf=([^;]*)/)
        const headers = xsrf && token ? {"X-Xsrftoken": token[1]} : {}
        return (await fetch(url, {method: "PUT", body: form, headers, credentials: "include"})).status
    }"""
    url = sent.value.url
    assert page.evaluate(put, [url, 1000, "../../../evil.png", True]) == 204
    assert page.evaluate(put, [url, 1_200_000, "large.png", True]) == 413
    assert page.evaluate(put, [url, 4_000_000, "large.png", True]) == 413
    assert page.evaluate(put, [url, 1000, "small.png", False]) == 403


@pytest.mark.parametrize("name", ["train", "explore", "audit"])
def test_every_page_opens_and_refuses_politely(app, page, name):
    page.goto(app.url + name)
    page.get_by_role("button", name=name.capitalize(), exact=True).click()
    page.get_by_text("This cannot be done").wait_for()
    assert "must be named" in page.get_by_test_id("stText").inner_text()
