"""The commands that play traffic through the twin: a trace under chosen settings, and scenarios with a lesson."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import cli_help
from agent.cli_common import EXIT_DIFFERENT, Format, Home, Output
from agent.cli_completion import complete_scenarios, complete_sessions, complete_traffic
from agent.home import home_directory
from tools.errors import SpecError

if TYPE_CHECKING:
    from agent.simulate import Simulation
    from agent.simulate_wishes import MetricWish

_DAY = (
    "infertune simulate traffic day --metric rate --target 500 --min 2 --max 14 --rps-per-replica 900 --p99-ms 12 "
    "--slo-ms 50"
)
_KEPT = {3: "a setting does not keep the SLO, or a scenario differs from what is expected of it"}
app = typer.Typer(
    no_args_is_help=True,
    help="Play traffic: what would an autoscaler setting have done?",
    epilog=cli_help.manual(
        examples=(
            ("Both work in a fresh checkout:", _DAY),
            ("", "infertune simulate scenario all"),
        ),
        exits=_KEPT,
    ),
)


_LEAST, _MOST = 2, 10
_SETTING, _REPLICA, _ASKED, _SHOWN = "The autoscaler", "A replica", "What is asked of it", "What is shown"
"""Panels of options."""


class FollowedMetric(StrEnum):
    """What an autoscaler may follow."""

    QUEUE = "queue"
    RATE = "rate"
    LATENCY = "latency"
    CPU = "cpu"


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("The bundled day, under a setting that follows the rate:", _DAY),
            (
                "What a session found in use, beside what it recommends:",
                "infertune simulate traffic 20261122-041502-3f9a --session 20261122-041502-3f9a",
            ),
            (
                "A recording of your own under two settings, drawn:",
                (
                    "infertune simulate traffic week.csv --setting today.yaml --setting tomorrow.yaml --curve 20261122 "
                    "--plot week.html"
                ),
            ),
        ),
        exits={3: "the setting, of two the second, keeps the SLO in too few of the minutes"},
    ),
)
def traffic(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TRACE_OR_SESSION",
            help="A CSV with the columns `second` and `rps`, recorded traffic (.json.gz), a session's id or its "
            "beginning, or `day`: the bundled one.",
            autocompletion=complete_traffic,
        ),
    ],
    home: Home = None,
    output: Annotated[
        Output, typer.Option(help="text for people, json prints the outcome of each setting and nothing else.")
    ] = Output.TEXT,
    *,
    setting: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_SETTING,
            help="YAML file with an HPA to play; two of them stand side by side.",
        ),
    ] = None,
    metric: Annotated[
        FollowedMetric | None,
        typer.Option(rich_help_panel=_SETTING, help="Play an HPA that follows this, with --target, --min and --max."),
    ] = None,
    target_value: Annotated[
        float | None,
        typer.Option(
            "--target",
            min=0.001,
            metavar="VALUE",
            rich_help_panel=_SETTING,
            help="Of the metric: requests that wait or come per second per pod, ms, or percent.",
        ),
    ] = None,
    least: Annotated[
        int | None,
        typer.Option(
            "--min", min=1, metavar="N", rich_help_panel=_SETTING, help="minReplicas, with --metric; default: 2."
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--max", min=1, metavar="N", rich_help_panel=_SETTING, help="maxReplicas, with --metric; default: 10."
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            rich_help_panel=_SETTING,
            autocompletion=complete_sessions,
            help="Play the HPA that this session found in use, and the one that it recommends.",
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            rich_help_panel=_REPLICA,
            autocompletion=complete_sessions,
            help="Session that measured how a replica serves.",
        ),
    ] = None,
    rps_per_replica: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="RPS",
            rich_help_panel=_REPLICA,
            help="Without a session: requests per second that a replica serves.",
        ),
    ] = None,
    p99_ms: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="MS", rich_help_panel=_REPLICA, help="With it: p99 of a request that does not wait."
        ),
    ] = None,
    slo_ms: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="MS", rich_help_panel=_ASKED, help="p99 to keep; default: the session's."),
    ] = None,
    kept_share: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            metavar="SHARE",
            rich_help_panel=_ASKED,
            help="Share of the minutes that must keep it; default: the session's, or 0.999.",
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="USD", rich_help_panel=_ASKED, help="Of one replica, in dollars; default: the session's."
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(
            min=60,
            metavar="SECONDS",
            rich_help_panel=_SHOWN,
            help="Seconds a line stands for, whole minutes; default: as fits.",
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            min=0, metavar="TIMES", rich_help_panel=_SHOWN, help="Times as fast as the traffic itself; 0: all at once."
        ),
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=_SHOWN, help="Draw it into this .svg or .html file.")
    ] = None,
) -> None:
    """Play traffic under one or two autoscaler settings.

    Says what each would have done: minutes that missed the SLO, the worst of them, replicas and cost.
    """
    from agent.simulate import simulate
    from agent.simulate_wishes import Wishes
    from tools.report.simulation_plot import check_plot_name

    if step is not None and step % 60:
        raise SpecError(f"{step} s are no whole number of minutes.", where="--step", fix="Give 60, 300, 3600, ...")
    if plot is not None:
        check_plot_name(plot)
    found = simulate(
        Wishes(
            target=target,
            home=home_directory(home),
            files=tuple(setting or ()),
            metric=_metric(metric, target_value, least, most),
            session=session,
            curve=curve,
            rps_per_replica=rps_per_replica,
            p99_ms=p99_ms,
            slo_ms=slo_ms,
            kept_share=kept_share,
            price_per_hour_usd=price_per_hour,
        )
    )
    if output is Output.JSON:
        typer.echo(found.answer().model_dump_json(indent=1))
    else:
        _print(found, step, speed)
    if plot is not None:
        _draw(found, plot, output)
    if not found.kept:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command(
    epilog=cli_help.manual(
        examples=(
            ("All that are bundled:", "infertune simulate scenario all"),
            ("One of them, for a script:", "infertune simulate scenario launch-spike --output json"),
        ),
        exits={3: "a setting comes to something else than is expected of it"},
        home=False,
    ),
)
def scenario(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|all",
            help="A bundled scenario, a YAML file, or all.",
            autocompletion=complete_scenarios,
        ),
    ],
    output: Format = Output.TEXT,
) -> None:
    """Play a scenario, and hold what comes of it against expectations."""
    from agent.simulate import find_scenarios
    from tools.scaling.scenario import judge_scenario, load_scenario

    scenarios = [load_scenario(path) for path in find_scenarios(name)]
    found = [(scenario, judge_scenario(scenario)) for scenario in scenarios]
    verdicts = [verdict for _, of_one in found for verdict in of_one]
    if output is Output.JSON:
        from pydantic import TypeAdapter

        from tools.scaling.scenario import ScenarioVerdict

        typer.echo(TypeAdapter(list[ScenarioVerdict]).dump_json(verdicts, indent=1))
    else:
        from rich.console import Console

        from agent.simulate_view import print_verdicts

        print_verdicts(found, Console(highlight=False))
    if not all(verdict.agreed for verdict in verdicts):
        raise typer.Exit(EXIT_DIFFERENT)


def _metric(
    metric: FollowedMetric | None, target: float | None, least: int | None, most: int | None
) -> MetricWish | None:
    from agent.simulate_wishes import MetricWish

    if metric is None:
        alone = [name for name, value in (("--target", target), ("--min", least), ("--max", most)) if value is not None]
        if alone:
            raise SpecError("is there, and no metric.", where=alone[0], fix="Name one: --metric rate")
        return None
    if target is None:
        raise SpecError("has no target.", where=f"--metric {metric.value}", fix="Give one: --target 500")
    return MetricWish(metric.value, target, least or _LEAST, most or _MOST)


def _print(found: Simulation, step: int | None, speed: float) -> None:
    from rich.console import Console

    from agent.simulate_view import print_outcome, print_steps, step_of

    console = Console(highlight=False)
    seconds = round(found.traffic.length_s)
    print_steps(found, console, step_s=step_of(seconds) if step is None else step, speed=speed)
    print_outcome(found, console)


def _draw(found: Simulation, path: Path, output: Output) -> None:
    from tools.report.simulation_plot import write_plot
    from tools.scaling.playing import series_of
    from tools.scaling.stepping import told

    about = " ".join(
        f"{p.setting.name}. {told(p.run.outcome, slo_ms=found.slo_ms, kept_share=found.kept_share)}"
        for p in found.played
    )
    write_plot(
        path,
        [(p.setting.name, series_of(p.run)) for p in found.played],
        slo_ms=found.slo_ms,
        title="Traffic through the twin",
        about=about,
    )
    if output is Output.TEXT:
        typer.echo(f"Wrote {path}.")
