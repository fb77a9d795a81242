"""The score: in which situations the decision is the best one, and what it costs where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, get_args

from rich import box
from rich.table import Table

from simulations.evaluation import scaling_truth, search_truth
from simulations.evaluation.asking import served
from simulations.evaluation.models import MODELS
from simulations.evaluation.situation import SAME, Answer, Score, SearchSituation, Situation, Topic

ADVISED = {
    "the policy": None,
    "with a good model": "good",
    "with a useless one": "prose",
    "with a hostile one": "hostile: the dearest to serve",
}
"""Who decides, with the name of the model that advises."""
ALONE = next(iter(ADVISED))

Solve = Callable[[Any], Answer]
_OTHERS: Mapping[str, tuple[Solve, Solve]] = {
    "scaling": (scaling_truth.search_settings, scaling_truth.best_setting),
    "controller": (scaling_truth.decide_replicas, scaling_truth.recorded_replicas),
    "bounds": (scaling_truth.judge_change, scaling_truth.may_change),
    "gap": (scaling_truth.judge_traffic, scaling_truth.traffic_is_enough),
}
"""What infertune decides, and the best decision, in situations in which no advisor is asked."""


@dataclass(frozen=True)
class Scored:
    """A situation, and what was decided in it, by who decided."""

    situation: Situation
    scores: Mapping[str, Score]


def scored(situation: Situation) -> Scored:
    """Let all of them decide."""
    if isinstance(situation, SearchSituation):
        best = search_truth.best_of_all(situation)
        decisions = {who: _advised(situation, model) for who, model in ADVISED.items()}
    else:
        decide, solve = _OTHERS[situation.kind]
        best, decision = solve(situation), decide(situation)
        decisions = dict.fromkeys(ADVISED, decision)
    return Scored(situation, {who: Score(decision, best) for who, decision in decisions.items()})


def score_table(results: Sequence[Scored]) -> Table:
    """Return a row for each who decides: in how many situations the decision is the best one, and the regret."""
    topics = get_args(Topic)
    printed = _table(
        f"{len(results)} situations: decisions that are the best one in hindsight "
        f"(within {SAME - 1:.0%} where a figure decides)"
    )
    for heading in ("all", *topics, "cost over that of the best: median, worst"):
        printed.add_column(heading, justify="right")
    for who in ADVISED:
        regrets = [score.regret for one in results if (score := one.scores[who]).regret is not None]
        printed.add_row(
            who,
            *(
                _share([one for one in results if topic in (None, one.situation.topic)], who)
                for topic in (None, *topics)
            ),
            f"{median(regrets):.2f}, {max(regrets):.2f}" if regrets else "-",
        )
    return printed


def situation_table(results: Sequence[Scored]) -> Table:
    """Return a row for each situation: what the policy decided, and what was best."""
    printed = _table(
        "What the policy decided, what was best, and the cost over that of the best: alone, with each model"
    )
    for heading in ("decided", "best", "alone", "good, useless, hostile model"):
        printed.add_column(heading)
    for one in results:
        score = one.scores[ALONE]
        printed.add_row(
            one.situation.name,
            _short(score.decided.says),
            "the same" if score.decided.says == score.best.says else _short(score.best.says),
            _mark(score),
            ", ".join(_mark(one.scores[who]) for who in ADVISED if who != ALONE),
        )
    return printed


def reasons(results: Sequence[Scored]) -> list[str]:
    """Return a sentence for each situation in which the policy's decision is not the best one."""
    found = []
    for one in results:
        score = one.scores[ALONE]
        if not score.is_best:
            ended = f": {score.decided.because}" if score.decided.because else ""
            found.append(f"{one.situation.name} is not the best, {score.decided.trials} tried{ended}.")
    return found


def _advised(situation: SearchSituation, model: str | None) -> Answer:
    if model is None:
        return search_truth.decided(situation)
    with served(MODELS[model], search_truth.grid_of(situation)) as ask:
        return search_truth.decided(situation, ask)


def _table(title: str) -> Table:
    printed = Table(title=title, title_justify="left", box=box.MARKDOWN)
    printed.add_column("")
    return printed


def _share(results: Sequence[Scored], who: str) -> str:
    return f"{sum(one.scores[who].is_best for one in results)} of {len(results)}"


def _mark(score: Score) -> str:
    if score.regret is None:
        return "right" if score.is_best else "wrong"
    return "nothing found" if math.isinf(score.regret) else f"{score.regret:.2f}"


def _short(text: str) -> str:
    """Shorten a walk of replicas: both ends and the peak are enough to tell it by."""
    steps = text.split(" -> ")
    return text if len(steps) < 6 else f"{steps[0]} to {max(steps, key=int)} to {steps[-1]}, in {len(steps) - 1} steps"
