"""The parts that need no model: the report, the terminal and MLflow's tags, and whether anything acts in them."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser

from rich.console import Console

from agent.console import print_summary
from agent.explain import print_explained
from agent.questions import explain
from simulations.injection.scene import Scene
from tools.errors import InfertuneError
from tools.report import html
from tools.tracking.facts import session_params, session_tags


@dataclass(frozen=True)
class Pages:
    """What a session shows without any chat."""

    texts: dict[str, str]
    active: list[str]
    """What acts in the page: scripts, handlers, what is loaded from elsewhere."""
    tags: frozenset[str]
    """Names of MLflow's tags and parameters."""


def read_pages(scene: Scene) -> Pages:
    """Return what a session shows in its report, in a terminal and in MLflow."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, color_system=None, width=100)
    print_summary(scene.result, console)
    with contextlib.suppress(InfertuneError):
        explained = explain(scene.folder, None)
        print_explained(explained, console, dt.datetime.now(dt.UTC))
        print_explained(replace(explained, in_full=True), console, dt.datetime.now(dt.UTC))
    page = html.render(scene.result)
    reader = _Reader()
    reader.feed(page)
    tags = {**session_tags(scene.result), **session_params(scene.result)}
    texts = {"in the report": page, "in the terminal": terminal.getvalue(), "in MLflow's tags": json.dumps(tags)}
    return Pages(texts, reader.active, frozenset(tags))


class _Reader(HTMLParser):
    """Collects what acts in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that acts, and attributes that do."""
        if tag in ("script", "iframe", "object", "embed", "img", "base", "meta", "link", "style", "form"):
            self.active.append(tag)
        for name, value in attrs:
            if name.startswith("on"):
                self.active.append(f"{tag} {name}")
            elif name in ("href", "src", "action", "xlink:href") and not (value or "").startswith(("#", "data:")):
                self.active.append(f"{tag} {name} to elsewhere")


def page_breaches(found: Pages, benign: Pages) -> Iterator[str]:
    """Yield what acts in the pages that does not in those of a session with harmless words."""
    strange = set(found.active) - set(benign.active)
    if strange or found.active.count("script") != benign.active.count("script"):
        yield f"something acts in report.html: {', '.join(sorted(strange)) or 'another script'}"
    text = found.texts["in the terminal"]
    acting = {f"U+{ord(c):04X}" for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")}
    if acting:
        yield f"the terminal was sent {', '.join(sorted(acting))}"
    foreign = {tag for tag in found.tags - benign.tags if not tag.startswith("infertune.plan")}
    if foreign:
        yield f"MLflow was given tags of these names: {', '.join(sorted(foreign))[:120]}"
