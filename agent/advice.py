"""What an advisor may decide: in which order candidates are tried that the policy leaves. Pure.

The policy's own search comes first, and ends by its own rules; only then is the advisor asked. So all that a session
without it would have tried has been tried, and what it names comes on top, within a share of the time. What is found
that way is recommended only where it is better beyond the noise (`tools.selection.final_choice`). A model that is slow,
wrong or hostile can so cost that share of the time, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.prospecting import Prospecting, Target
from agent.search import Prospect
from tools.contracts import AdviceResult, Evidence, EvidenceKind, JsonScalar, Measured, Option
from tools.selection import final_choice, is_advised
from tools.view import SessionView

SHARE = 0.10
"""Of the time budget, for asking and for what is tried on its advice."""
LEAST_S = 5.0
"""With less than this left, nobody is asked and nothing is tried."""
MOST_OPTIONS = 12
"""That are offered at once."""
MOST_PICKS = 3
"""Of an answer that are tried."""
MOST_ROUNDS = 3
"""Times that it is asked in a session; after the first, only if what it named last is recommended now."""


def left_s(view: SessionView, until_s: float) -> float:
    """Return the seconds that are left for what the advisor names.

    Args:
        view: what is known.
        until_s: of the time budget that may be used in all.
    """
    began = [result.asked_at_s for _, result in _answers(view)]
    spent_s = view.elapsed_s - min(began) if began else 0.0
    return min(SHARE * view.spec.budget.time_s - spent_s, until_s - view.elapsed_s)


def offered(prospects: Sequence[Prospect], seconds: float) -> tuple[Prospect, ...]:
    """Return what is offered: the most rewarding a second of what fits and may still keep every constraint."""
    return tuple(p for p in prospects if p.feasible > 0 and p.seconds <= seconds)[:MOST_OPTIONS]


def as_offered(prospect: Prospect) -> Option:
    """Return a prospect as an option that the advisor is shown."""
    facts: dict[str, JsonScalar] = {
        "key": prospect.candidate.key,
        "expected_gain": round(prospect.gain, 3),
        "sd": round(prospect.sd, 3),
        "chance": round(prospect.chance, 4),
        "seconds": round(prospect.seconds, 1),
    }
    return Option(name=str(prospect.candidate), facts=facts)


def next_pick(view: SessionView, problem: Prospecting, prospects: Sequence[Prospect], seconds: float) -> Target | None:
    """Return what the last answer names and is still to be tried; None when there is nothing of that kind."""
    asked, answers = _asked(view), _answers(view)
    if not answers or answers[-1][0] is not asked[-1]:
        return None
    evidence, result = answers[-1]
    costs_s = {p.candidate.key: p.seconds for p in prospects}
    for place in result.order[:MOST_PICKS]:
        key = evidence.parameters["options"][place]
        if key in problem.targets and costs_s.get(key, math.inf) <= seconds:
            return problem.targets[key]
    return None


def may_ask(view: SessionView) -> bool:
    """Whether the advisor is asked (once more): it answered, and what came of it is recommended now."""
    asked = _asked(view)
    if not asked:
        return True
    last = asked[-1]
    if len(asked) >= MOST_ROUNDS or not isinstance(last.outcome, Measured):
        return False
    since = view.evidence[view.evidence.index(last) :]
    new = {e.recipe.digest for e in since if e.kind in (EvidenceKind.TRIAL, EvidenceKind.SWEEP)}
    winner, _ = final_choice(view)
    return winner is not None and is_advised(view, winner) and winner.tried.recipe.digest in new


def _asked(view: SessionView) -> list[Evidence]:
    return [e for e in view.of_kind(EvidenceKind.ADVICE) if "options" in e.parameters]


def _answers(view: SessionView) -> list[tuple[Evidence, AdviceResult]]:
    found = []
    for evidence in _asked(view):
        match evidence.outcome:
            case Measured(result=AdviceResult() as result):
                found.append((evidence, result))
            case _:
                continue
    return found
