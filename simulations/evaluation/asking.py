"""Asking a scripted model as a session asks a real one: over HTTP, by the advisor itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat

from agent.advisor import LanguageModel
from agent.chat.model import Settings
from simulations.evaluation.models import Model, Question
from simulations.evaluation.session import Answered, Ask
from simulations.openai_server import Answer, OpenAIServer, Request, says
from simulations.search.grid import Grid
from tools.contracts import AdviceResult, Option
from tools.outcomes import reason
from tools.view import SessionView
from tools.worker import Returned

_ANSWERS = 100
"""More than any session asks for."""
_NUMBERED = re.compile(r"^\d+\. (.+?): \S+ to \S+ times as good", re.MULTILINE)
"""A line of the prompt that shows an option."""


@contextlib.contextmanager
def served(model: Model, grid: Grid) -> Iterator[Ask]:
    """Serve a scripted model on loopback, and yield what asks it.

    The prompt is all that it knows of a question, and the truth of the grid. What it takes is counted as its script
    says and not by a clock, so that the same session comes to the same end.
    """
    with OpenAIServer(repeat(partial(_respond, model, grid), _ANSWERS)) as server:
        advisor = LanguageModel(Settings(model="scripted", base_url=server.url))

        def ask(view: SessionView, options: Sequence[Option], limit_s: float) -> Answered:
            outcome = advisor.order(view, options, asked_at_s=view.elapsed_s, limit_s=limit_s)
            if isinstance(outcome, Returned):
                return Answered(AdviceResult.model_validate(outcome.value), model.seconds)
            return Answered(None, model.wasted_s(limit_s), reason(outcome))

        yield ask


def _respond(model: Model, grid: Grid, request: Request) -> Answer:
    cells = {cell.key: cell for cell in grid.cells}
    prompt = next(message["content"] for message in request["messages"] if message["role"] == "user")
    question = Question(tuple(cells[name] for name in _NUMBERED.findall(prompt)), grid)
    text = model.answer(question)
    return Answer(hang=True) if text is None else says(text)
