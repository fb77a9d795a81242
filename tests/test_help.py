"""Every page of `--help` is a manual page: what the command does, options, examples that parse, exit codes."""

import re
import shlex

import pytest
import typer

from agent import cli_common, cli_help
from agent.cli import app
from tools.contracts import Verdict

ROOT = typer.main.get_command(app)


def walk(command, words=(), parent=None):
    """Yield the words that lead to a command, the command, and its context, for all there are."""
    context = command.context_class(command, info_name=words[-1] if words else "infertune", parent=parent)
    yield words, command, context
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from walk(command.get_command(context, name), (*words, name), context)


PAGES = {" ".join(("infertune", *words)): (command, context) for words, command, context in walk(ROOT)}


@pytest.fixture
def page(capsys, monkeypatch):
    """Render a page as a terminal of 80 columns shows it."""

    def render(name):
        monkeypatch.setenv("COLUMNS", "80")
        command, context = PAGES[name]
        capsys.readouterr()
        text = command.get_help(context)  # rich prints it, and nothing is returned
        return capsys.readouterr().out + text

    return render


def parse(typed):
    """Parse a command as its user types it, without carrying anything out."""
    words = shlex.split(typed.partition(" | ")[0])
    assert words[0] == "infertune"
    command, name, rest, context = ROOT, "infertune", words[1:], None
    if rest[0] == "--install-completion":
        return context
    while True:
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]
        if not hasattr(command, "resolve_command"):
            assert not rest
            return context
        name, command, rest = command.resolve_command(context, rest)


def test_there_are_all_commands_and_groups():
    assert len(PAGES) > 35
    assert {"infertune sessions compare", "infertune evidence gc", "infertune schedule run"} <= PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_fits_80_columns(page, name):
    command, context = PAGES[name]
    shown = page(name)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in shown, "something was cut off"
    assert "[bold]" not in shown
    assert command.help, "it says what it does"
    headings = [line.strip() for line in lines if re.fullmatch(r" [A-Z][a-z ]+ *", line)]
    assert headings[-4:][: len(headings)].count("Examples") == 1
    assert "Exit codes" in headings
    assert re.search(r"^   0 +\S", shown, re.MULTILINE)
    assert re.search(r"^   2 +\S", shown, re.MULTILINE)
    if any("--home" in parameter.opts for parameter in command.params):
        assert re.search(r"^   INFERTUNE_HOME +\S", shown, re.MULTILINE)
    for parameter in command.get_params(context):
        for variable in filter(None, [getattr(parameter, "envvar", None)]):
            assert f" {variable} " in shown
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} says what it is"


@pytest.mark.parametrize("name", PAGES)
def test_every_example_parses_and_is_about_the_command(name):
    command, _ = PAGES[name]
    examples = cli_help.examples_in(command.epilog)
    assert examples
    for example in examples:
        parse(example)
    if name != "infertune":
        assert any(example.startswith(name) for example in examples)


@pytest.mark.parametrize("name", PAGES)
def test_a_list_of_commands_has_a_line_for_each(page, name):
    command, context = PAGES[name]
    if not hasattr(command, "list_commands"):
        return
    lines = page(name).splitlines()
    panels = "\n".join(lines)
    for sub in command.list_commands(context):
        (at,) = [place for place, line in enumerate(lines) if line.startswith(f"│ {sub} ")]
        assert lines[at + 1][2:12].strip() or lines[at + 1].startswith("╰"), f"{sub} takes more than a line: {panels}"


def test_the_first_page_has_its_panels_in_order(page):
    shown = page("infertune")
    found = re.findall(r"^╭─ (.+?) ─+╮$", shown, re.MULTILINE)
    assert found == ["Options", *cli_help.PANELS]


@pytest.mark.parametrize("name", PAGES)
def test_exit_codes_that_a_command_ends_with_are_named(name):
    command, _ = PAGES[name]
    names = set() if command.callback is None else _globals_of(command.callback)
    if {"EXIT_DIFFERENT", "finish"} & names:
        assert re.search(r"^  3 +\S", command.epilog, re.MULTILINE)
    if {"EXIT_INTERRUPTED", "finish"} & names:
        assert re.search(r"^  130 +\S", command.epilog, re.MULTILINE)


def _globals_of(function):
    """Names of the module that a command uses, itself or in a helper of its module."""
    function = getattr(function, "__wrapped__", function)
    used = set(function.__code__.co_names)
    for name in [name for name in used if name.startswith("_")]:
        helper = function.__globals__.get(name)
        used |= set(getattr(getattr(helper, "__code__", None), "co_names", ()))
    return used


def test_the_verdicts_of_the_command_line_are_those_of_results():
    assert [v.value for v in cli_common.Verdict] == [v.value for v in Verdict]


def test_a_long_example_goes_on_in_the_next_line_and_can_be_pasted():
    typed = f"infertune optimize tuning.yaml --students {'x' * 40} --only openvino | jq .verdict"
    epilog = cli_help.manual(examples=(("Long:", typed),))
    lines = epilog.splitlines()[2:5]
    assert [line.endswith("\\") for line in lines] == [True, True, False]
    assert all(len(line) <= 78 for line in lines)
    assert cli_help.examples_in(epilog) == [typed]
