"""The dashboard and the report for everybody: by keyboard, with eyes that need contrast, enlarged, without motion."""

from __future__ import annotations

import shutil

import pytest
from challenge_support import played_scaling, sample_challenge
from sample_result import sample_result

from tools.report import browser as browsers
from tools.report.browser import open_browser
from tools.report.challenge import render
from tools.report.html import render as render_report

LEAST_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3 (level AA), for text of usual size."""
WEAK = """(() => {
  const paper = document.createElement('canvas'); paper.width = paper.height = 1;
  const ink = paper.getContext('2d', {willReadFrequently: true});
  const over = (colours) => {  // what shows where colours lie one over the other
    ink.clearRect(0, 0, 1, 1);
    for (const colour of colours) { ink.fillStyle = colour; ink.fillRect(0, 0, 1, 1); }
    return [...ink.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (rgb) => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  document.querySelectorAll('details').forEach(d => d.open = true);
  const weak = []; let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || ['title', 'STYLE'].includes(element.tagName) || !element.getClientRects().length) continue;
    const grounds = [];
    for (let e = element; e; e = e.parentElement) {
      grounds.unshift(getComputedStyle(e).backgroundColor);
      if (+getComputedStyle(e).opacity !== 1) weak.push(['see-through', text]);
    }
    const style = getComputedStyle(element);
    const colour = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [below, above] = [over(grounds), over([...grounds, colour])].map(luminance);
    const contrast = (Math.max(below, above) + 0.05) / (Math.min(below, above) + 0.05);
    seen += 1;
    if (contrast < LEAST) weak.push([contrast, text]);
  }
  return {seen, weak};
})()""".replace("LEAST", str(LEAST_CONTRAST))
FOCUSABLE = "[...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')].filter(e => e.checkVisibility())"
FOCUSED = f"""(() => {{
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {{place: {FOCUSABLE}.indexOf(e), outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth}};
}})()"""
WIDEST = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_OFF = """[...document.querySelectorAll('main *, header *')].filter(e => {
  const hidden = ['hidden', 'clip'].includes(getComputedStyle(e).overflowX) && !e.closest('svg');
  return hidden && e.scrollWidth > e.clientWidth + 1; }).length"""


@pytest.fixture(scope="module")
def browser():
    """One browser for all of these."""
    if not any(shutil.which(name) for name in browsers._NAMES):
        pytest.skip("there is no Chromium here")
    with open_browser() as found:
        found.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        yield found


@pytest.fixture(scope="module", params=["challenge", "report"])
def page(request, tmp_path_factory):
    """The dashboard, and a report whose traffic was played in the twin."""
    path = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    result = sample_result() if request.param == "challenge" else sample_result(scaling=played_scaling())
    path.write_text(render(sample_challenge(), result) if request.param == "challenge" else render_report(result))
    return path


def press(browser, key, code=0, text=""):
    """Press and release a key."""
    for kind in ("keyDown", "keyUp"):
        more = {"text": text} if text and kind == "keyDown" else {}
        browser.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_text_stands_out_from_what_it_lies_on(browser, page, width, dark):
    browser.show(page, width=width, dark=dark, phone=width < 600)
    found = browser.value(WEAK)
    assert found["seen"] > 500
    assert found["weak"] == []


def test_the_tab_key_reaches_everything_in_its_order_and_shows_where_it_is(browser, page):
    browser.show(page, width=1440)
    total = browser.value(f"{FOCUSABLE}.length")
    assert total > 30
    visited = []
    for _ in range(total):
        press(browser, "Tab", 9)
        visited.append(browser.value(FOCUSED))
    assert [stop["place"] for stop in visited] == list(range(total))
    assert [stop for stop in visited if stop["outline"] < 2] == []
    assert [stop for stop in visited if not stop["seen"]] == []


def test_enter_unfolds_and_folds_what_has_the_focus(browser, page):
    browser.show(page, width=1440)
    browser.value("document.querySelector('.decisions summary').focus()")
    for opened in (True, False):
        press(browser, "Enter", 13, "\r")
        assert browser.value("document.querySelector('.decisions details').open") is opened


def test_the_first_tab_offers_to_skip_to_the_numbers(browser, page):
    browser.show(page, width=1440)
    press(browser, "Tab", 9)
    press(browser, "Enter", 13, "\r")
    target = browser.value("document.activeElement.getAttribute('href') || location.hash")
    assert browser.value(f"location.hash === '{target}' && !!document.querySelector('main {target}')")


def test_landmarks_are_there_once_and_everything_lies_in_one(browser, page):
    browser.show(page, width=1440)
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert browser.value(f"document.querySelectorAll('{landmark}').length") == 1, landmark
    outside = "[...document.body.children].filter(e => !e.matches('header, main, footer, a.skip')).length"
    assert browser.value(outside) == 0
    assert browser.value("document.documentElement.lang") == "en"


def test_every_picture_has_a_title_and_its_figures_in_words(browser, page):
    browser.show(page, width=1440)
    drawn = browser.value(
        "[...document.querySelectorAll('svg')].map(s => [s.getAttribute('role'), "
        "s.querySelector(':scope > title').textContent, s.getAttribute('aria-label')])"
    )
    assert len(drawn) >= 4
    for role, title, words in drawn:
        assert role == "img"
        assert 10 < len(title) < 80
        assert sum(character.isdigit() for character in words) >= 4


@pytest.mark.parametrize(("width", "phone"), [(1440, False), (768, False), (390, True), (320, True)])
@pytest.mark.parametrize("text_size", [1, 2], ids=["usual", "twice"])
def test_the_page_never_scrolls_sideways_however_large_its_text(browser, page, width, phone, text_size):
    browser.show(page, width=width, phone=phone)
    browser.value(f"document.documentElement.style.fontSize = '{16 * text_size}px'")
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("innerWidth") == width
    assert browser.value(WIDEST) <= 0
    assert browser.value(CUT_OFF) == 0


def test_nothing_moves_for_whoever_asked_for_no_motion(browser, page):
    moving = "getComputedStyle(document.querySelector('.decisions summary'), '::before').transitionDuration"
    browser.show(page, width=1440)
    assert browser.value(moving) != "0s"
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert browser.value(moving) == "0s"


def test_on_paper_everything_is_unfolded_and_the_links_to_sections_are_gone(browser, page):
    browser.show(page, width=718)  # A4 between the usual margins
    shown = "document.querySelector('.decisions .unfolded').checkVisibility()"
    assert not browser.value(shown)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value(shown)
        assert not browser.value("document.querySelector('nav').checkVisibility()")
        assert browser.value(WIDEST) <= 0, "what is wider is cut off on paper, or shrinks all of it"
    finally:
        browser.ask("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("img", {"src": "http://127.0.0.1:9/pixel.png"}),
        ("script", {"textContent": "document.title = 'ran'"}),
        ("link", {"rel": "stylesheet", "href": "http://127.0.0.1:9/style.css"}),
    ],
)
def test_whatever_got_into_the_page_could_load_and_run_nothing(browser, page, tag, attributes):
    browser.show(page, width=1440)
    title = browser.value("document.title")
    refused = browser.value(
        "new Promise(found => { document.addEventListener('securitypolicyviolation', e => "
        f"found(e.effectiveDirective)); const e = Object.assign(document.createElement('{tag}'), {attributes!r}); "
        "document.body.append(e); setTimeout(() => found(null), 3000); })"
    )
    assert refused is not None
    assert refused.startswith(tag if tag != "link" else "style")
    assert browser.value("document.title") == title
