"""Kubernetes objects as canonical YAML under a comment that says where the numbers come from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import yaml

from tools.cluster.text import MESSAGE_LIMIT, shown
from tools.scaling.manifest import Manifest

_WIDTH = 118


class _Dumper(yaml.SafeDumper):
    """Writes several lines of text as several lines, and the same object twice in full."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def render(notes: Iterable[str], *documents: Manifest) -> str:
    """Return one file.

    Args:
        notes: sentences for the comment at the top. They may hold text from elsewhere: no line end in it ends the
            comment.
        documents: the objects, keys in the order in which they are to be read.
    """
    bodies = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)
        for document in documents
    ]
    return _comment(notes) + "---\n".join(bodies)


def _comment(notes: Iterable[str]) -> str:
    lines = []
    for note in notes:
        lines += textwrap.wrap(shown(note, MESSAGE_LIMIT), _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)
