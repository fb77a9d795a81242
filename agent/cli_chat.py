"""The command that talks about sessions: with a model over any OpenAI-compatible endpoint, or by a menu without one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from agent.cli_common import Home

app = typer.Typer()


@app.command()
def chat(
    about: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKLOAD|SESSION]",
            help="A tuning.yaml, a bundled workload, or a session's id or its beginning; default: the latest session.",
        ),
    ] = None,
    home: Home = None,
    *,
    thread: Annotated[str | None, typer.Option(help="Name of the conversation; one that exists goes on.")] = None,
    model: Annotated[
        str | None, typer.Option(envvar="INFERTUNE_MODEL", help="The model, as the endpoint names it.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(envvar="OPENAI_BASE_URL", help="An OpenAI-compatible endpoint; default: OpenAI's."),
    ] = None,
    price_per_million: Annotated[
        str | None,
        typer.Option(metavar="IN:OUT", help="USD per million tokens, to say what the conversation cost: 0.15:0.60."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Of the whole thread; beyond it the model is asked nothing more.")
    ] = 500_000,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the endpoint may be silent.")] = 60.0,
) -> None:
    """Talk about sessions: what was found and why, what if, how to scale. Every figure comes from a tool.

    The key is read from OPENAI_API_KEY. Without a model the same tools are offered as a menu. Nothing is approved or
    applied from here: the chat prints the commands, and a person runs them.
    """
    from agent.chat.history import thread_name
    from agent.chat.loop import converse, read_prices, settings_from, standard_terminal, surroundings
    from agent.session import home_directory

    prices = None if price_per_million is None else read_prices(price_per_million)
    name = thread_name(thread, about)
    settings, missing = settings_from(model, base_url, os.environ.get("OPENAI_API_KEY"), timeout)
    at = surroundings(home_directory(home), about)
    terminal = standard_terminal()
    if missing is not None:
        terminal.say(missing)
    try:
        converse(at, name, settings, terminal, limit_tokens=max_tokens, prices=prices)
    except KeyboardInterrupt:
        terminal.say("")
