"""The report: one self-contained page about a finished session."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.artifacts import write_file
from tools.contracts import PROTOCOL_VERSION, Gate, Verdict
from tools.report import choices, rows, scaling_rows, steps
from tools.report import format as fmt
from tools.result import ScalingSummary, SessionResult

if TYPE_CHECKING:
    from jinja2 import Environment

_LAYER_ROWS = 15
_LEFT_OUT_ROWS = 8
"""Of what was left out; the rest unfolds."""

VERDICTS: Mapping[Verdict, str] = {
    Verdict.MET: "Every promise is kept.",
    Verdict.INFEASIBLE: "No candidate keeps every promise.",
    Verdict.UNSTABLE: "The machine was too noisy to tell.",
    Verdict.INTERRUPTED: "The session ended early.",
}

GLOSSARY: Mapping[str, str] = {
    "p50, p95, p99": "The time within which 50, 95 or 99 of 100 calls were answered.",
    "[low, high]": "The 95 % confidence interval: how far the number could move if all were measured again.",
    "n": "How many samples the number rests on.",
    "Baseline": "The model as it was given, before anything was changed.",
    "Batch": "Requests that the model answers in one call. Larger batches serve more requests per second, "
    "each of which waits longer.",
    "Ratio": "Baseline against best, timed in turn in one process, so that noise hits both alike. "
    "Above 1 the best is better.",
    "Accuracy drop": "Baseline minus candidate on the same items. Positive is worse.",
    "Pareto front": "The trials that no other trial beats in both accuracy and latency.",
    "distill": "A smaller model that learned to answer as the given one does.",
    "prune-channels": "Whole channels taken out, so that less is to be computed.",
    "finetune": "Training on after pruning, to win back accuracy.",
    "fp32, bf16, int8": "How numbers are kept and computed: 32 or 16 bits of floating point, or 8-bit integers. "
    "Static: their scales were calibrated beforehand; dynamic: they are found for each call.",
    "streams, threads": "How many calls a runtime answers side by side, and on how many cores each.",
    "MFLOP": "Millions of floating-point operations: the work that one item is. It says less about the time than one "
    "would think.",
    "Expected gain": "How many times as good as the model as given a candidate was thought to be before it was tried: "
    "from what is usual, corrected by what was measured of candidates that have something in common with it.",
    "Given up": "Clearly too slow or too inaccurate after a part of the usual measurement: not measured further.",
    "Roofline": "What this machine reaches at most: arithmetic per second, and bytes moved per second.",
    "SLO": "The promise about latency: here, the largest allowed p99.",
    "HPA": "HorizontalPodAutoscaler: the part of Kubernetes that sets the number of replicas.",
    "Gate": "A check before, after, or for the step to production. Open means: not shown to hold.",
}


def render(result: SessionResult) -> str:
    """Return the report as one HTML page that loads nothing from anywhere.

    All text of the result is treated as untrusted: escaped, and free of control characters.
    """
    return render_template("template.html.j2", result)


def render_template(template: str, result: SessionResult, **more: Any) -> str:
    """Return a page that the report's template, or one that extends it, makes of a result.

    Args:
        template: name of a file in this folder.
        result: the session.
        more: what the template needs beside it.
    """
    from markupsafe import Markup

    from tools.report import pareto, plots, traffic_plot

    drawn = {
        "pareto": pareto.pareto(result),
        "batch": plots.batch_curves(result),
        "layers": plots.layers(result.profile.layers) if result.profile else None,
        "traffic": traffic_plot.traffic(result),
        "scaling": _played(result.scaling),
    }
    return (
        _environment()
        .get_template(template)
        .render(
            result=result,
            metric=result.metric,
            verdict=VERDICTS[result.verdict],
            asked=fmt.objective(result.objective, result.metric),
            comparison=rows.comparison(result),
            promises=rows.promises(result),
            trials=rows.trials(result),
            given_up=sum(trial.given_up is not None for trial in result.trials),
            steps=steps.steps(result),
            silent_steps=steps.silent_steps(result),
            sensitivities=steps.sensitivities(result),
            left_out=choices.left_out(result),
            left_out_first=_LEFT_OUT_ROWS,
            why_stopped=choices.why_stopped(result),
            choices=choices.choices(result),
            layers=result.profile.layers[:_LAYER_ROWS] if result.profile else (),
            operators=_largest_first(result.profile.operators) if result.profile else (),
            gates=_by_stage(result.gates),
            usable_as_given_rps=traffic_plot.usable_as_given_rps(result),
            settings=scaling_rows.settings(result.scaling),
            server_diff=rows.diff(result.plan.server_diff or result.plan.diff) if result.plan else (),
            diff=rows.diff(result.scaling.hpa_diff) if result.scaling else (),
            # markup made by plots.py, in which every text from outside is escaped
            plots={name: Markup(svg) if svg is not None else None for name, svg in drawn.items()},  # noqa: S704
            protocol=PROTOCOL_VERSION,
            glossary=GLOSSARY,
            **more,
        )
    )


def render_task(result: dict[str, Any], path: str) -> str:
    """Write the page of a JSON-ready `SessionResult`; runs in a worker, so that the session never waits for plots.

    Args:
        result: `SessionResult.model_dump(mode="json")`.
        path: the file to write, usually `report.html` in the session's folder.

    Returns:
        The path that was written.

    Raises:
        StorageError: the file cannot be written.
        pydantic.ValidationError: `result` is no session result.
    """
    write_file(Path(path), render(SessionResult.model_validate(result)))
    return path


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: fmt.clean(value) if type(value) is str else value,
    )
    environment.filters |= {
        name: getattr(fmt, name)
        for name in ("ms", "mb", "usd", "rate", "number", "seconds", "span", "drop", "accuracy")
    }
    environment.globals |= {"facts": choices.facts, "label": fmt.label, "loss": fmt.loss}
    return environment


def _played(scaling: ScalingSummary | None) -> str | None:
    """Draw what the twin did, where it was asked."""
    from tools.report import scaling_plot

    recommendation = None if scaling is None else scaling.recommendation
    return None if recommendation is None else scaling_plot.scaling(recommendation)


def _by_stage(gates: tuple[Gate, ...]) -> dict[str, list[Gate]]:
    stages: dict[str, list[Gate]] = {}
    for gate in gates:
        stages.setdefault(gate.stage, []).append(gate)
    return stages


def _largest_first(shares: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(shares.items(), key=lambda item: -item[1]))
