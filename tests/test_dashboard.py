from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from challenge_support import sample_challenge
from sample_result import sample_result

from tools.report import browser as browsers
from tools.report.browser import NoBrowserError, open_browser, take_picture
from tools.report.challenge import render, render_task

STYLE = Path(browsers.__file__).with_name("style.css")
MOST_BYTES = 2_000_000
LEAST_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3 (level AA), for text of usual size."""
TEXTS = ("--ink", "--muted", "--best", "--base", "--limit", "--good", "--bad", "--wait")
WASHES = {"--good": "--good-wash", "--bad": "--bad-wash", "--wait": "--wait-wash"}
PLACES = ((390, False), (390, True), (1400, False), (1400, True))
LOOK = """(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const folded = all('details'); folded.forEach(d => d.open = true);
  const named = (e) => (e.getAttribute('aria-label')
    || (document.getElementById(e.getAttribute('aria-labelledby')) || {}).textContent
    || (e.querySelector(':scope > title') || {}).textContent || '').trim();
  const seen = {
    body: document.documentElement.scrollWidth, window: innerWidth,
    headings: all('h1,h2,h3,h4').map(h => +h.tagName[1]),
    unnamed: all('svg,section,nav,[role=region]').filter(e => !named(e)).length,
    svgs: all('svg').map(s => [s.getAttribute('role'), named(s)]),
    captions: all('table').filter(t => !t.caption).length, tables: all('table').length,
    unscoped: all('th').filter(t => !t.scope).length,
    stuck: all('*').filter(e => e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(
      getComputedStyle(e).overflowX) && e.tabIndex < 0).length,
    wide: all('main > section > *').filter(e => e.getBoundingClientRect().right > innerWidth + 1).length,
    small: all('a,summary').filter(e => e.getBoundingClientRect().height > 0
      && e.getBoundingClientRect().height < 12).length,
    lost: all('a[href^="#"]').filter(a => !document.getElementById(a.getAttribute('href').slice(1))).length,
    ids: all('[id]').length - new Set(all('[id]').map(e => e.id)).size,
    folded: folded.length, focusable: all('summary,a,[tabindex="0"]').every(e => { e.focus();
      return document.activeElement === e; }),
    paper: getComputedStyle(document.documentElement).backgroundColor,
    ink: getComputedStyle(document.body).color,
    loaded: performance.getEntriesByType('resource').length,
  };
  return seen;
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "challenge.html"
    path.write_text(render(sample_challenge(), sample_result()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def seen(page):
    """Everything that is looked at in the browser, by width and scheme, in one start of it; and a picture."""
    if not any(shutil.which(name) for name in browsers._NAMES):
        pytest.skip("there is no Chromium here")
    found = {}
    with open_browser() as browser:
        for width, dark in PLACES:
            browser.show(page, width=width, dark=dark, phone=width < 600)
            found[width, dark] = browser.value(LOOK)
            found[width, dark]["asked"] = width
            found[width, dark]["requests"] = [
                event["params"]["request"]["url"]
                for event in browser.events
                if event.get("method") == "Network.requestWillBeSent"
            ]
        found["picture"] = browser.picture()
    return found


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]}-{'dark' if place[1] else 'light'}")
def look(request, seen):
    return seen[request.param]


def test_nothing_but_the_page_itself_is_asked_for(look, page):
    assert look["requests"] == [page.as_uri()]
    assert look["loaded"] == 0


def test_the_page_is_no_wider_than_the_screen(look):
    assert look["window"] == look["asked"], "a phone zooms out of a page that is too wide"
    assert look["body"] <= look["asked"]
    assert look["wide"] == 0


def test_headings_go_down_one_level_at_a_time(look):
    assert look["headings"][0] == 1
    assert look["headings"].count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(look["headings"]))


def test_every_figure_and_region_has_a_name(look):
    assert look["unnamed"] == 0
    assert look["svgs"]
    assert all(role == "img" and len(name) > 20 for role, name in look["svgs"])


def test_every_table_has_a_caption_and_every_heading_of_one_a_scope(look):
    assert look["tables"] > 5
    assert look["captions"] == look["unscoped"] == 0


def test_whatever_scrolls_or_unfolds_is_reached_by_keyboard(look):
    assert look["folded"] > 5
    assert look["stuck"] == 0
    assert look["focusable"]
    assert look["small"] == 0


def test_links_lead_somewhere_and_no_id_is_there_twice(look):
    assert look["lost"] == look["ids"] == 0


def test_the_colours_follow_the_scheme(seen):
    light, dark = (seen[390, scheme] for scheme in (False, True))
    assert light["paper"] != dark["paper"]
    assert light["ink"] == dark["paper"] or luminance(rgb(light["paper"])) > luminance(rgb(dark["paper"]))


def test_the_picture_is_a_png_of_the_whole_page(seen):
    assert seen["picture"].startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(seen["picture"][at : at + 4], "big") for at in (16, 20))
    assert width == 1400
    assert height > 3000


def test_the_page_is_small_and_whole(page):
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert text.count("<section") == text.count("</section>")
    for heading in ("Step by step", "Targets", "Before and after", "Decisions", "Gates", "Batch size", "Scaling"):
        assert f">{heading}</h2>" in text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_stands_out_from_what_it_stands_on(dark):
    colours = variables(dark=dark)
    colours["--taken"] = mixed(colours["--best"], colours["--paper"], 0.08)
    pairs = [("--ink", "--taken"), ("--muted", "--taken")]
    pairs += [(text, ground) for text in TEXTS for ground in ("--paper", "--raised")] + list(WASHES.items())
    weak = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < LEAST_CONTRAST} == {}


def test_without_a_browser_there_is_a_page_and_a_sentence_in_place_of_the_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = sample_challenge().model_dump(mode="json"), sample_result().model_dump(mode="json")
    answer = render_task(*told, str(tmp_path / "c.html"), str(tmp_path / "c.png"))
    assert not answer["picture"]
    assert "no Chromium" in answer["notes"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.html"]


def test_a_browser_that_ends_at_once_is_no_browser(tmp_path, monkeypatch):
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBrowserError, match="ended early"):
        take_picture(tmp_path / "c.html")


def test_a_browser_that_says_nothing_is_not_waited_for_and_is_ended(tmp_path, monkeypatch):
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browsers.Browser.__init__, "__defaults__", (0.2,))
    with pytest.raises(NoBrowserError, match="did not answer"):
        take_picture(tmp_path / "c.html")


def variables(*, dark):
    """Return the CSS variables of a scheme as the page has them: dark ones over the light."""
    css = STYLE.read_text(encoding="utf-8")
    light, _, rest = css.partition("@media (prefers-color-scheme: dark)")
    found = declared(light)
    return {**found, **declared(rest.partition("\n}")[0])} if dark else found


def declared(css):
    return {name: hexed(value) for name, value in re.findall(r"(--[\w-]+): #([0-9a-f]{3}|[0-9a-f]{6});", css)}


def hexed(digits):
    digits = digits if len(digits) == 6 else "".join(d * 2 for d in digits)
    return tuple(int(digits[at : at + 2], 16) for at in (0, 2, 4))


def mixed(one, other, share):
    """Return what `color-mix` makes of a colour and of what shows through it."""
    return tuple(share * a + (1 - share) * b for a, b in zip(one, other, strict=True))


def rgb(text):
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def luminance(colour):
    """Return the relative luminance (WCAG 2.2, definition)."""
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """Return the contrast ratio of two colours (WCAG 2.2, definition)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
