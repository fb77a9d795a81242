"""Decisions as files: one JSON each for programs, one Markdown page for people."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tools.contracts import Decision, JsonScalar, Option


def write_decisions(decisions: Sequence[Decision], folder: Path) -> None:
    """Write `decisions/<nn>-<id>.json` for each decision, in order, and `decisions.md`."""
    (folder / "decisions").mkdir()
    for number, decision in enumerate(decisions, start=1):
        content = decision.model_dump(mode="json") | {"evidence": list(decision.evidence)}
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", decision.id)
        (folder / "decisions" / f"{number:02d}-{name}.json").write_text(json.dumps(content, indent=1))
    (folder / "decisions.md").write_text(decisions_markdown(decisions))


def decisions_markdown(decisions: Sequence[Decision]) -> str:
    """Return the page that tells, decision by decision, what was asked, considered and chosen, and why."""
    if not decisions:
        return "# Decisions\n\nNone was taken.\n"
    sections = [_section(number, decision) for number, decision in enumerate(decisions, start=1)]
    return "# Decisions\n\n" + "\n".join(sections)


def _section(number: int, decision: Decision) -> str:
    lines = [
        f"## {number}. {cell(decision.question)}",
        "",
        f"Chosen: **{cell(decision.chosen or 'none of the options')}**. {cell(decision.reason)}",
        "",
        f"- rule: {cell(decision.rule)}",
        f"- decided by: {decision.by}, in `{decision.node}`",
        f"- decision: `{decision.id}`",
        "",
    ]
    if decision.options:
        lines += ["| option | what counted | evidence | not chosen because |", "|---|---|---|---|"]
        lines += [_row(option, chosen=option.name == decision.chosen) for option in decision.options]
        lines.append("")
    return "\n".join(lines)


def _row(option: Option, *, chosen: bool) -> str:
    name = f"**{cell(option.name)}**" if chosen else cell(option.name)
    facts = ", ".join(f"{cell(key)} {_value(value)}" for key, value in option.facts.items())
    evidence = ", ".join(f"`{e}`" for e in option.evidence)
    return f"| {name} | {facts} | {evidence} | {cell(option.rejected_because or '')} |"


def _value(value: JsonScalar) -> str:
    return f"{value:.4g}" if isinstance(value, float) else cell(str(value))


def cell(text: str) -> str:
    """Keep a text on one line and out of the table's syntax."""
    return " ".join(text.split()).replace("|", "\\|")
