"""The challenge as a person reads it: the rows of its tables, for the terminal and the page, and the page itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.artifacts import write_file
from tools.challenge import Challenge, ChallengeStep, StepOutcome, Target, TargetState, final_step
from tools.contracts import Interval
from tools.report import format as fmt
from tools.report.browser import NoBrowserError, take_picture
from tools.report.rows import Cell
from tools.result import SessionResult

_MARKS = {TargetState.MET: "good", TargetState.MISSED: "bad", TargetState.OPEN: ""}
_DROP = "accuracy drop"
_LABELS = {"throughput": "throughput of one replica", "cost per request": "cheaper per request", "p99": "lower p99"}


@dataclass(frozen=True)
class StepRow:
    """One step."""

    name: str
    outcome: str
    recipe: str
    batch: str
    """Empty where there are no figures."""
    replicas: str
    """Empty where there is one."""
    throughput: Cell
    times: str
    """Throughput, as how many times that of the model as given."""
    p50: Cell
    p99: Cell
    cost: Cell
    accuracy: Cell
    drop: Cell
    why: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class TargetRow:
    """One target."""

    name: str
    label: str
    """What the figure says, as it stands below it."""
    wanted: str
    got: Cell
    state: str
    mark: str
    """Class of the badge that says the state."""
    stretch: str
    how: str
    evidence: tuple[str, ...]


def step_rows(challenge: Challenge) -> tuple[StepRow, ...]:
    """Return every step, in order."""
    given = challenge.steps[0].figures
    assert given is not None
    return tuple(_step_row(step, given.throughput_rps.value, challenge.metric) for step in challenge.steps)


def target_rows(challenge: Challenge) -> tuple[TargetRow, ...]:
    """Return what was asked, and what was measured."""
    return tuple(_target_row(target, challenge.metric) for target in challenge.targets)


def sentence(challenge: Challenge) -> str:
    """Return the story in a sentence: from where to where, and by what."""
    first, last = challenge.steps[0].figures, final_step(challenge.steps).figures
    assert first is not None
    assert last is not None
    taken = [step.name for step in challenge.steps if step.outcome is StepOutcome.TAKEN]
    if not taken:
        return "Nothing that was tried serves more than the model as given and keeps what that keeps."
    return (
        f"From {fmt.rate(first.throughput_rps.value)} to {fmt.rate(last.throughput_rps.value)} on one replica, "
        f"from {fmt.usd(first.cost_per_1000_usd.value)} to {fmt.usd(last.cost_per_1000_usd.value)} for 1,000 requests, "
        f"by {', '.join(taken)}."
    )


def render(challenge: Challenge, result: SessionResult) -> str:
    """Return the whole as one HTML page that loads nothing: the story, and the session's report below it.

    All text is treated as untrusted, as in `tools.report.html`.
    """
    from markupsafe import Markup

    from tools.report.challenge_plot import draw_steps
    from tools.report.html import render_template

    drawn = draw_steps(challenge)
    return render_template(
        "challenge.html.j2",
        result,
        challenge=challenge,
        story=step_rows(challenge),
        story_sentence=sentence(challenge),
        # markup made by challenge_plot.py, in which every text from outside is escaped
        story_plot=None if drawn is None else Markup(drawn),  # noqa: S704
        targets=target_rows(challenge),
    )


def render_task(challenge: dict[str, Any], result: dict[str, Any], page: str, picture: str) -> dict[str, Any]:
    """Write the page and a picture of it; a worker task.

    Args:
        challenge: `Challenge.model_dump(mode="json")`.
        result: `SessionResult.model_dump(mode="json")`.
        page: the HTML file to write.
        picture: the PNG file to write.

    Returns:
        `picture`: whether there is one; `notes`: sentences for a person.

    Raises:
        StorageError: a file cannot be written.
    """
    told, session = Challenge.model_validate(challenge), SessionResult.model_validate(result)
    write_file(Path(page), render(told, session))
    try:
        write_file(Path(picture), take_picture(Path(page)))
    except NoBrowserError as error:
        return {"picture": False, "notes": [f"No picture of the page was taken: {error}"]}
    return {"picture": True, "notes": []}


def _step_row(step: ChallengeStep, given_rps: float, metric: str) -> StepRow:
    f, nothing = step.figures, Cell()
    why = step.why if step.settled else f"{step.why} The machine was too noisy for these figures to be relied on."
    return StepRow(
        name=step.name,
        outcome=step.outcome.value,
        recipe=fmt.clean(step.recipe or ""),
        batch="" if f is None else str(f.batch_size),
        replicas="" if f is None or step.replicas == 1 else f"{step.replicas} replicas",
        throughput=nothing if f is None else _cell(fmt.rate(f.throughput_rps.value), f.throughput_rps),
        times=fmt.NOTHING if f is None else f"{fmt.number(f.throughput_rps.value / given_rps)}x",
        p50=nothing if f is None or f.p50_ms is None else _cell(fmt.ms(f.p50_ms.value), f.p50_ms),
        p99=nothing if f is None else _cell(fmt.ms(f.p99_ms.value), f.p99_ms),
        cost=nothing if f is None else _cell(fmt.usd(f.cost_per_1000_usd.value), f.cost_per_1000_usd),
        accuracy=nothing if f is None else _accuracy(f.accuracy, metric),
        drop=nothing if f is None else _drop(f.accuracy_drop, metric),
        why=fmt.clean(why),
        evidence=step.evidence,
    )


def _target_row(target: Target, metric: str) -> TargetRow:
    is_drop = target.name == _DROP
    wanted = f"at most {fmt.drop(target.wanted, metric).removeprefix('+')}" if is_drop else f"{target.wanted:g}x"
    got = _drop(target.got, metric) if is_drop else _cell(f"{fmt.number(target.got.value)}x", target.got)
    stretch = fmt.NOTHING
    if target.stretch is not None and target.stretch_state is not None:
        stretch = f"{fmt.number(target.stretch)}x: {target.stretch_state.value}"
    return TargetRow(
        name=target.name,
        label=_LABELS.get(target.name, target.name),
        wanted=wanted if is_drop else f"at least {wanted}",
        got=got,
        state=target.state.value,
        mark=_MARKS[target.state],
        stretch=stretch,
        how=fmt.clean(target.how),
        evidence=target.evidence,
    )


def _cell(text: str, interval: Interval) -> Cell:
    """Return a value with its interval; what was computed has none."""
    return Cell(text, fmt.span(interval) if interval.low < interval.high else "", interval.n)


def _accuracy(value: Interval, metric: str) -> Cell:
    scale = 100.0 if metric in fmt.PERCENT_METRICS else 1.0
    return Cell(fmt.accuracy(value.value, metric), fmt.span(value, scale), value.n)


def _drop(value: Interval, metric: str) -> Cell:
    return Cell(fmt.drop(value.value, metric), fmt.drop_span(value, metric), value.n)
