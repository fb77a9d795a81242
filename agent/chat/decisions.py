"""Decisions as facts for the chat: what was asked and chosen, why, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping

from agent.chat.facts import MOST, SHORT, Facts, data, evidence_ids, identity, name, own, sentence
from agent.questions import Explained
from tools.contracts import Decision, Evidence, JsonScalar, Measured, Option
from tools.outcomes import describe, reason
from tools.report import format as fmt

_OWN_WORDS = frozenset(
    {
        "planner",
        "profiler",
        "quantization_evaluation",
        "compression_evaluation",
        "runtime_evaluation",
        "batch_tuning",
        "confirmation",
        "scaling_recommendation",
    }
)
"""Nodes whose reasons are our own words about measurements. The others quote servers, people and models."""


def explained(found: Explained) -> Facts:
    """Return decisions: all in a line each, or those asked for with their options and evidence."""
    known = found.evidence
    if not found.in_full:
        return {"decisions": [_brief(decision, known) for decision in found.decisions[-MOST * 2 :]]}
    return {
        "decisions": [
            {
                **_brief(decision, known),
                "rule": sentence(decision.rule),
                "decided by": decision.by,
                "options": [_option(option, found.metric) for option in decision.options[:MOST]],
                "rests on": [
                    {"evidence": one[:SHORT], "what": data(describe(known[one]))}
                    for one in decision.evidence[:MOST]
                    if one in known
                ],
            }
            for decision in found.decisions[-MOST:]
        ]
    }


def _brief(decision: Decision, known: Mapping[str, Evidence]) -> Facts:
    named = [option.name for option in decision.options if option.facts.get("today") is not False]
    names = [*named, *(option.partition(" at batch ")[0] for option in named)]
    chosen = next((_named(option) for option in decision.options if option.name == decision.chosen), None)
    return {
        "decision": identity(decision.id),
        "node": name(decision.node),
        "question": sentence(decision.question) if decision.node in _OWN_WORDS else name(decision.question),
        "chosen": chosen or name(decision.chosen or "none of the options"),
        "why": data(decision.reason) if _quotes(decision, known) else own(decision.reason, names),
    }


def _quotes(decision: Decision, known: Mapping[str, Evidence]) -> bool:
    """Whether the reason of a decision repeats somebody else's words, such as the error message of a failed trial."""
    if decision.node not in _OWN_WORDS or not all(one in known for one in decision.evidence):
        return True
    failures = (reason(known[one].outcome) for one in decision.evidence if not isinstance(known[one].outcome, Measured))
    return any(said and said.rstrip(".") in decision.reason for said in failures)


def _named(option: Option) -> str:
    """Return an option's name; the twin's settings have figures in theirs, and today's has its metrics' names."""
    return sentence(option.name) if option.facts.get("today") is False else name(option.name)


def _option(option: Option, metric: str) -> Facts:
    facts = {_label(key): _fact(key, value, metric) for key, value in option.facts.items()}
    why = option.rejected_because
    # What was never measured was rejected by somebody's error message, the rest by a rule of ours.
    rejected = {} if why is None else {"rejected because": sentence(why) if option.facts else data(why)}
    return {"option": _named(option), **facts, **rejected, "evidence": evidence_ids(option.evidence)}


def _label(key: str) -> str:
    """Return what a fact is called; ours are called as fields are."""
    return sentence(fmt.label(key)) if key.isascii() and key.isidentifier() else name(fmt.label(key))


def _fact(key: str, value: JsonScalar, metric: str) -> str:
    if isinstance(value, str):
        return data(value)
    if key == "accuracy_drop" and isinstance(value, float):
        return fmt.drop(value, metric)
    return fmt.quantity(key, value)
