"""What a session's advisor was asked, and what came of it, for the result. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tools.contracts import AdviceResult, Decision, Evidence, EvidenceKind, Measured, WordingResult
from tools.outcomes import describe
from tools.result import AdviceSummary
from tools.selection import Configured, final_choice, is_advised
from tools.view import SessionView


def advice_summary(view: SessionView, decisions: Sequence[Decision], *, session: str) -> AdviceSummary | None:
    """Return what came of the advisor; None where none was asked.

    Args:
        view: all that the session knows.
        decisions: all that it decided.
        session: its id: only what it spent itself is counted.
    """
    asked = view.of_kind(EvidenceKind.ADVICE)
    if not asked:
        return None
    answers = [answer for answer in map(_answer, asked) if answer is not None]
    followed = [d for d in decisions if d.by == "model" and d.node == "planner"]
    tried = tuple(dict.fromkeys(d.options[0].name for d in followed))
    best, _ = final_choice(view)
    found = best if best is not None and is_advised(view, best) else None
    texts = [answer.text for answer in answers if isinstance(answer, WordingResult)]
    measured = [e for e in view.evidence[view.evidence.index(asked[0]) :] if e.recipe.name in tried]
    return AdviceSummary(
        model=answers[0].exchange.model if answers else "",
        asked=len(asked),
        refused=tuple(describe(e) for e in asked if _answer(e) is None),
        tried=tried,
        chosen=found is not None,
        influence=_influence(answers, tried, found),
        text=texts[-1] if texts else None,
        seconds=sum(e.seconds for e in (*asked, *measured) if e.session == session),
        tokens_in=sum(answer.exchange.tokens_in for answer in answers),
        tokens_out=sum(answer.exchange.tokens_out for answer in answers),
        estimated=any(answer.exchange.estimated for answer in answers),
        evidence=tuple(e.id for e in asked),
    )


def _answer(evidence: Evidence) -> AdviceResult | WordingResult | None:
    match evidence.outcome:
        case Measured(result=AdviceResult() | WordingResult() as result):
            return result
    return None


def _influence(answers: Sequence[AdviceResult | WordingResult], tried: Sequence[str], found: Configured | None) -> str:
    if found is not None:
        return f"{found.name} was found by its advice, after the policy's own search had ended."
    if tried:
        return f"None on the choice: what it named ({', '.join(tried)}) was tried, and is not better beyond the noise."
    if any(isinstance(answer, AdviceResult) for answer in answers):
        return "None on the choice: nothing that it named was tried."
    return "None: it gave no advice that could be used, or was not asked for any."
