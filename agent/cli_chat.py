"""The command that talks about sessions: with a model over any OpenAI-compatible endpoint, or by a menu without one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from agent import cli_help
from agent.cli_common import Home
from agent.cli_completion import complete_sessions_and_targets
from agent.home import home_directory

app = typer.Typer()


@app.command(
    rich_help_panel=cli_help.AUTOMATE,
    epilog=cli_help.manual(
        examples=(
            ("About the latest session, without a model, by a menu:", "infertune chat"),
            (
                "With a model of your own, about a workload:",
                "infertune chat digits-tiny --model qwen3 --base-url http://127.0.0.1:8000/v1",
            ),
            ("Go on with a conversation:", "infertune chat --thread monday"),
        ),
        environment={
            "INFERTUNE_MODEL": "the model, unless --model says",
            "OPENAI_BASE_URL": "its endpoint, unless --base-url says; default: OpenAI's",
            "OPENAI_API_KEY": "its key, which is never written down",
        },
    ),
)
def chat(
    about: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKLOAD|SESSION]",
            help="A tuning.yaml, a bundled workload, or a session's id or its beginning; default: the latest session.",
            autocompletion=complete_sessions_and_targets,
        ),
    ] = None,
    home: Home = None,
    *,
    thread: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the conversation; one that exists goes on.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(envvar="INFERTUNE_MODEL", metavar="NAME", help="The model, as the endpoint names it.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(envvar="OPENAI_BASE_URL", metavar="URL", help="An OpenAI-compatible endpoint; default: OpenAI's."),
    ] = None,
    price_per_million: Annotated[
        str | None,
        typer.Option(metavar="IN:OUT", help="USD per million tokens, to say what the conversation cost: 0.15:0.60."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of the whole thread; beyond it the model is asked nothing more.")
    ] = 500_000,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="That the endpoint may be silent.")] = 60.0,
) -> None:
    """Talk about what was found and why, what if, how to scale.

    Every figure comes from a tool. The key is read from OPENAI_API_KEY. Without a model the same tools are offered
    as a menu. Nothing is approved or applied from here: the chat prints the commands, and a person runs them.
    """
    from agent.chat.history import thread_name
    from agent.chat.loop import converse, read_prices, settings_from, surroundings
    from agent.chat.terminal import standard_terminal

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
    finally:
        if settings is not None:
            from agent.chat.traces import start_tracing

            start_tracing(at.home, name)
