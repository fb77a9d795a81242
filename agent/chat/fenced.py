"""Other people's text in a tool's answer: fenced as data, unless it is of a form in which it can claim nothing.

What stands outside of `<data>...</data>` vouches for the figures in it (`agent.chat.guard`). So a text stands outside
only if infertune wrote all of it, or if it holds no figure that somebody could plant.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from agent.chat.figures import figures
from tools.cluster.text import INVISIBLE, shown

SHORT = 10
"""Characters of an evidence id: enough to be the only one that begins so."""
MOST = 12
"""Items of any list that is told."""
_SENTENCE = 600
_NAME = 100
_DATA = 240
_BRACKETS = {ord(opening): "(" for opening in "<\u2039\u27e8\u3008"} | {ord(c): ")" for c in ">\u203a\u27e9\u3009"}
_IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)?", re.ASCII)
_EVIDENCE = re.compile(r"[0-9a-f]{1,16}")
_AT_BATCH = re.compile(r" at batch \d{1,4}\Z")
_SETTING = re.compile(
    r"[-+ ]? *(?:- )?(?:"
    r"(?:minReplicas|maxReplicas|averageUtilization|stabilizationWindowSeconds|periodSeconds): \d{1,9}"
    r"|value: \d{1,9}|(?:averageValue|value|tolerance): ['\"]?\d{1,12}(?:\.\d{1,6})?(?:m|k|M|G|Ki|Mi|Gi)?['\"]?"
    r"|type: (?:Pods|Percent|Resource|External|Object|AverageValue|Utilization|Value|ContainerResource)"
    r"|selectPolicy: (?:Max|Min|Disabled)"
    r"|(?:spec|scaleTargetRef|metrics|metric|pods|resource|target|behavior|scaleUp|scaleDown|policies|external|object):"
    r")"
)
"""Lines of an autoscaler that hold fields of Kubernetes' own with plain values, and no name that somebody gave."""


def data(text: object) -> str:
    """Fence other people's text: one line, escaped, at most 240 characters, and unable to close the fence."""
    return f"<data>{_harmless(str(text), _DATA)}</data>"


def sentence(text: str) -> str:
    """Return a sentence that infertune wrote, on one line."""
    return _harmless(text, _SENTENCE)


def name(text: str) -> str:
    """Return a name that infertune composed (a recipe, a runtime, a field), short and on one line.

    Parts of it may be somebody's: a student's name, a setting of a plugin. In our own form a figure stands right
    behind `=`, and has no unit, or is a batch size at the end; a name that states one in another way is fenced.
    """
    own = _AT_BATCH.sub("", text)
    claims = (f for f in figures(own) if f.dimension is not None or (own[f.start - 1 : f.start] != "=" and not f.token))
    return data(text) if any(claims) else _harmless(text, _NAME)


def own(text: str, names: Iterable[str]) -> str:
    """Return a sentence that infertune wrote about things with these names; fenced if one of them claims something."""
    return data(text) if any(one in text and name(one) == data(one) for one in names) else sentence(text)


def identity(text: str) -> str:
    """Return an id as it is; what is not of an id's form, or states a figure, is fenced."""
    return text if _IDENTITY.fullmatch(text) and not any(figures(text)) else data(text)


def moment(text: str) -> str:
    """Return a time in ISO 8601 as it is; anything else is fenced."""
    return text if _MOMENT.fullmatch(text) else data(text)


def spec_lines(lines: Iterable[str]) -> list[str]:
    """Return lines of an autoscaler's spec or of a diff of it; those that hold what somebody named are fenced."""
    return [_harmless(line, _NAME) if _SETTING.fullmatch(line.rstrip()) else data(line) for line in lines]


def evidence_ids(ids: Iterable[str]) -> list[str]:
    """Return ids as they are quoted, without repetitions."""
    short = [one[:SHORT] for one in list(dict.fromkeys(ids))[:MOST]]
    return [one if _EVIDENCE.fullmatch(one) else data(one) for one in short]


def _harmless(text: str, limit: int) -> str:
    """Return a text on one line, short, unable to open or close a fence, whatever its letters look like.

    Compatibility forms are taken for what they look like, since a model reads a full-width bracket as a bracket.
    """
    if len(text) > 8 * limit:
        text = text[: 4 * limit] + text[-4 * limit :]  # a bound on the work; `shown` leaves out the middle, too
    plain = unicodedata.normalize("NFKC", INVISIBLE.sub("", text))
    return shown(plain, limit).translate(_BRACKETS)
