"""The fence: every rule that a change has to pass, whoever asks for it. Pure, but for `kill_switch`."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from tools.cluster.bounds import within
from tools.cluster.hpa_object import HpaObject
from tools.cluster.owners import notes_on, owner_of
from tools.cluster.text import shown
from tools.contracts.base import Contract
from tools.contracts.scaling import Bounds, HpaSpec

__all__ = ["OPT_IN", "Refusal", "Rule", "check_fence", "kill_switch", "notes_on", "owner_of", "within"]

OPT_IN = ("infertune.dev/managed", "true")
"""The label by which a team allows that an HPA is changed."""

KILL_SWITCH_VARIABLE = "INFERTUNE_KILL_SWITCH"
KILL_SWITCH_FILE = "kill-switch"

Rule: TypeAlias = Literal[
    "kill_switch", "namespace", "opt_in", "owner", "deleting", "scaled_to_zero", "cooldown", "in_flight", "bounds"
]


class Refusal(Contract):
    """A rule that forbids the change, and why, for a person."""

    rule: Rule
    sentence: str


def check_fence(
    obj: HpaObject,
    after: HpaSpec,
    *,
    allow_namespaces: tuple[str, ...],
    bounds: Bounds,
    price_per_hour_usd: float | None,
    now: dt.datetime,
    cooldown_s: float,
    last_change: dt.datetime | None = None,
    in_flight: str | None = None,
    kill_switch: str | None = None,
) -> tuple[Refusal, ...]:
    """Return every rule that forbids to give `obj` the spec `after`; empty if it may be done.

    Args:
        obj: the HPA, freshly read.
        after: `OWNED_FIELDS` as they are to be, complete.
        allow_namespaces: in which anything may be changed at all.
        bounds: what `after` may not leave.
        price_per_hour_usd: of one replica; None if unknown.
        now: with a time zone.
        cooldown_s: no second change of the same HPA within this time.
        last_change: when infertune last changed this HPA, with a time zone; None: never.
        in_flight: digest of another plan that is being applied, verified or rolled back on this HPA; None: no other.
        kill_switch: from the function of that name.
    """
    where = f"{shown(obj.namespace)}/{shown(obj.name)}"

    def refusals() -> Iterator[tuple[Rule, str]]:
        if kill_switch is not None:
            yield "kill_switch", kill_switch
        if obj.namespace not in allow_namespaces:
            allowed = ", ".join(shown(name) for name in allow_namespaces) or "none"
            yield (
                "namespace",
                f"Namespace {shown(obj.namespace)} is not on the allow-list (`cluster.allow_namespaces`: {allowed}).",
            )
        yield from _object_refusals(obj, where)
        yield from _time_refusals(where, now, cooldown_s, last_change, in_flight)
        for sentence in within(bounds, after, price_per_hour_usd):
            yield "bounds", sentence

    return tuple(Refusal(rule=rule, sentence=sentence) for rule, sentence in refusals())


def kill_switch(home: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return, in a sentence, which kill switch is on; None if none is.

    It is on when the variable is set, to whatever, or the file is there. What cannot be looked at counts as on.

    Args:
        home: the home directory (`INFERTUNE_HOME`).
        environ: the environment.
    """
    if KILL_SWITCH_VARIABLE in environ:
        return f"The kill switch is on: {KILL_SWITCH_VARIABLE} is set. Unset it to allow changes again."
    path = home / KILL_SWITCH_FILE
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"The kill switch {path} cannot be looked at ({error.strerror}), which counts as on."
    return f"The kill switch is on: {path} is there. Remove it to allow changes again."


def _object_refusals(obj: HpaObject, where: str) -> Iterator[tuple[Rule, str]]:
    label, value = OPT_IN
    if obj.labels.get(label) != value:
        found = f"is {shown(obj.labels[label])}" if label in obj.labels else "is missing"
        yield "opt_in", f'The label {label}: "{value}" of {where} {found}: its team has not allowed changes.'
    owner = owner_of(obj)
    if owner is not None:
        yield (
            "owner",
            f"{where} is kept by {owner}, which would undo the change: it belongs into that owner's repository.",
        )
    if obj.deleting:
        yield "deleting", f"{where} is being deleted."
    active = obj.condition("ScalingActive")
    if obj.owned.get("minReplicas") == 0 or (active is not None and active.reason == "ScalingDisabled"):
        yield "scaled_to_zero", f"{where} is scaled to zero, or may be: waking it is its owner's decision."


def _time_refusals(
    where: str, now: dt.datetime, cooldown_s: float, last_change: dt.datetime | None, in_flight: str | None
) -> Iterator[tuple[Rule, str]]:
    if in_flight is not None:
        yield "in_flight", f"Another change of {where} is under way: plan {shown(in_flight)}."
    if last_change is None:
        return
    passed_s = (now - last_change).total_seconds()
    if passed_s < 0:
        yield "cooldown", f"{where} was last changed in the future ({last_change:%Y-%m-%dT%H:%M:%SZ}): check the clock."
    elif passed_s < cooldown_s:
        yield (
            "cooldown",
            f"{where} was changed {passed_s:.0f} s ago: no second change within {cooldown_s:.0f} s.",
        )
