"""What stands in for a language model: it asks for tools, and words what they answered. Its figures are theirs.

Each answer is a function of the request, as a model's would be; what it quotes, it finds in the last answer of a tool.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from simulations.openai_server import Answer, Request, Scripted, calls, says

Told: TypeAlias = dict[str, Any]
Words: TypeAlias = Callable[[Told], str]

ASKED_P99_MS, PRICE_USD = 5.0, 0.17
"""What the person asks for in "what if"."""


def script(time_budget_s: float, max_trials: int) -> list[Scripted]:
    """Return the answers to the questions of `simulations.chat_demo`, in their order.

    Args:
        time_budget_s: of the sessions that it starts.
        max_trials: of these.
    """
    start = {"workload": "yours", "time_budget_s": time_budget_s, "max_trials": max_trials}
    return [
        *_turn(_started, ("list_workloads", {}), ("start_session", start)),
        *_turn(_watched, ("watch_session", {})),
        *_turn(_ended, ("show_result", {})),
        calls(("explain", {})),
        _into_the_last_choice,
        _worded(_why),
        *_turn(_what_if, ("what_if", {"p99_ms": ASKED_P99_MS, "price_per_hour_usd": PRICE_USD})),
        *_turn(_started, ("start_session", start)),
        *_turn(_compared, ("compare_sessions", {})),
        *_turn(_traffic, ("describe_traffic", {})),
        *_turn(_scaling, ("show_scaling", {})),
        *_turn(_plan, ("show_plans", {})),
        *_turn(_approval, ("request_approval", {})),
        *_turn(_plan, ("show_plans", {})),
    ]


def _turn(words: Words, *tools: tuple[str, dict[str, Any]]) -> Iterator[Scripted]:
    """Yield a turn: the tools, each in a round of its own, and what is said of the last one's answer."""
    for tool in tools:
        yield calls(tool)
    yield _worded(words)


def _worded(words: Words) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        found = _latest(request)
        problem = found.get("problem")
        return says(f"That did not work: {_unfenced(problem)}" if problem else _unfenced(words(found["answer"])))

    return answer


def _into_the_last_choice(request: Request) -> Answer:
    """Look into the last decision that chose a configuration, or else into the last one."""
    decisions = _latest(request)["answer"]["decisions"]
    choices = [d for d in decisions if d["node"] in ("runtime_evaluation", "batch_tuning", "confirmation")]
    return calls(("explain", {"decision": (choices or decisions)[-1]["decision"]}))


def _latest(request: Request) -> Told:
    contents = [message["content"] for message in request["messages"] if message["role"] == "tool"]
    told: Told = json.loads(contents[-1])
    return told


def _unfenced(text: str) -> str:
    return re.sub(r"</?data>", "", text)


def _started(told: Told) -> str:
    return f"Session {told['session']} runs in the background. Ask me how far it is."


def _watched(told: Told) -> str:
    return (
        f"Session {told['session']} is {told['state']}: {told['trials and checks so far']} trials and checks, "
        f"{told['decisions so far']} decisions so far."
    )


def _ended(told: Told) -> str:
    best, given = told["best"], told["model as given"]
    if best is None:
        return f"{told['verdict']}: {told['summary']} (session {told['session']})"
    return (
        f"{told['verdict']}. {told['summary']}\nBest is {best['recipe']} at batch {best['batch size']}: p99 "
        f"{best['p99 of a batch']}, {best['throughput']}, {best['cost per thousand requests']} for a thousand "
        f"requests. As given it was {given['throughput']} and {given['cost per thousand requests']}. "
        f"(session {told['session']}, decisions {', '.join(told['decisions'][-3:])})"
    )


def _why(told: Told) -> str:
    decision = told["decisions"][0]
    measured = [option for option in decision.get("options", ()) if option["evidence"]]
    rests = ", ".join(dict.fromkeys(identity for option in measured for identity in option["evidence"]))
    return (
        f"Decision {decision['decision']} asked: {decision['question']} It chose {decision['chosen']}: "
        f"{decision['why'].rstrip('.')}. The rule: {decision['rule']}. It rests on the evidence {rests or 'of others'}."
    )


def _what_if(told: Told) -> str:
    now, then = told["what if"], told["the session's own answer"]
    best = now["best"]
    same = "the same choice" if told["same choice"] else "another choice"
    chosen = "Nothing keeps that" if best is None else f"{best['recipe']} at batch {best['batch size']}, {same}"
    cost = "" if best is None else f", for {best['cost per thousand requests']} a thousand requests"
    before = "" if then["best"] is None else f" (it was {then['best']['cost per thousand requests']})"
    rests = ", ".join(told["evidence"]) or "none that fits"
    checks = told["to be sure, measure"]
    sure = f" To be sure: {checks[0]['what']}" if checks else ""
    return f"{now['verdict']}: {chosen}{cost}{before}. From the evidence {rests}; nothing was measured.{sure}"


def _compared(told: Told) -> str:
    sides = [told["first"], told["second"]]
    lines = [
        f"- {side['session']}: {side['verdict']}, "
        + ("nothing" if side["best"] is None else f"{side['best']['recipe']}, {side['best']['throughput']}")
        for side in sides
    ]
    return "\n".join([*lines, *told["notes"]])


def _traffic(told: Told) -> str:
    return (
        f"{told['length']} of traffic: {told['mean']} on average, {told['peak']} at its peak. "
        f"{' '.join(told['shape'])} (session {told['session']})"
    )


def _scaling(told: Told) -> str:
    return (
        f"{told['in a sentence']}\nOne replica can do {told['capacity of a replica']}, and is planned with "
        f"{told['planned with']}. So minReplicas {told['minReplicas']} and maxReplicas {told['maxReplicas']}. "
        f"(session {told['session']}, decision {', '.join(told['decisions'])})"
    )


def _plan(told: Told) -> str:
    plan = told["plans"][-1]
    return (
        f"Plan {plan['plan']} for {plan['what it scales']} is {plan['state']}: {plan['why']} It rests on the evidence "
        f"{', '.join(plan['evidence'][:3])} of session {plan['session']}."
    )


def _approval(told: Told) -> str:
    return (
        f"I cannot: that takes a person, in a terminal. To approve plan {told['plan']}:\n"
        f"  {told.get('a person approves it', 'it is approved already')}\nThen, to have it carried out:\n"
        f"  {told['a person has it carried out']}"
    )
