"""How heavy a page is, and how soon a person sees it: bytes, and first contentful paint in a real Chromium.

    python -m simulations.page_speed .infertune/sessions/ID/challenge.html

Each load is the first of a browser that was just started, with an empty profile and no network. The first contentful
paint is what the browser itself tells (https://www.w3.org/TR/paint-timing/): the time from the beginning of the
navigation to the first text or image on the screen.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tools.report.browser import NoBrowserError, open_browser

LOADS = 5
WIDTH = 1280
_FIRST_PAINT = """new Promise(found => new PerformanceObserver(list => list.getEntriesByName('first-contentful-paint')
    .forEach(entry => found(entry.startTime))).observe({type: 'paint', buffered: true}))"""


@dataclass(frozen=True)
class Speed:
    """One page.

    Attributes:
        size_bytes: of the file, which is all that is loaded.
        first_paint_ms: of each load, ascending.
    """

    size_bytes: int
    first_paint_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The median of the first contentful paints."""
        return statistics.median(self.first_paint_ms)


def measure(page: Path, loads: int = LOADS) -> Speed:
    """Load a page so many times, each time in a new browser.

    Raises:
        NoBrowserError: there is no browser, or it does not answer.
        OSError: the page cannot be read.
    """
    size_bytes = page.stat().st_size
    paints_ms = []
    for _ in range(loads):
        with open_browser() as browser:
            browser.show(page, width=WIDTH)
            paints_ms.append(float(browser.value(_FIRST_PAINT)))
    return Speed(size_bytes, tuple(sorted(paints_ms)))


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each page; returns 2 where one cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m simulations.page_speed", description=__doc__.partition("\n")[0])
    parser.add_argument("page", nargs="+", type=Path, help="an HTML file")
    for page in parser.parse_args(arguments).page:
        try:
            speed = measure(page)
        except (NoBrowserError, OSError) as error:
            Console(stderr=True).print(f"{page}: {error}", markup=False, highlight=False, soft_wrap=True)
            return 2
        low, high = speed.first_paint_ms[0], speed.first_paint_ms[-1]
        told = (
            f"{page.name}: {speed.size_bytes:,} bytes, first contentful paint {speed.median_ms:.0f} ms "
            f"(median of {len(speed.first_paint_ms)}, {low:.0f} to {high:.0f})"
        )
        Console().print(told, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
