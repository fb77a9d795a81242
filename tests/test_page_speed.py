"""How heavy a page is, and how soon it is seen."""

from __future__ import annotations

import re
import shutil

import pytest

from simulations.page_speed import Speed, main, measure
from tools.report import browser as browsers
from tools.report.browser import NoBrowserError


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<!doctype html><title>t</title><h1>Something to see</h1>")
    return path


def test_a_page_is_weighed_and_its_first_paint_is_what_the_browser_tells(page):
    if not any(shutil.which(name) for name in browsers._NAMES):
        pytest.skip("there is no Chromium here")
    found = measure(page, loads=2)
    assert found.size_bytes == page.stat().st_size
    assert len(found.first_paint_ms) == 2
    assert all(ms > 0 for ms in found.first_paint_ms)


def test_the_middle_of_the_loads_is_told():
    assert Speed(10, (1.0, 2.0, 9.0)).median_ms == 2.0


def test_a_page_that_is_not_there_is_a_mistake_without_a_traceback(tmp_path, capsys):
    assert main([str(tmp_path / "none.html")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_without_a_browser_it_says_so(page, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBrowserError):
        measure(page)
    assert main([str(page)]) == 2
    assert re.search("no Chromium", capsys.readouterr().err)
