"""What a person wants of the search: only these, not those, such students, so many trials."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.space import GROUPS, PLUMBING, SETTINGS
from tools.contracts import Precision
from tools.errors import SpecError
from tools.runtimes import RUNTIME_NAMES
from tools.spec import SearchSpec, TuningSpec, describe_validation_error
from tools.transforms import TRANSFORM_NAMES


def search_wishes(
    *, only: str | None, exclude: str | None, students: str | None, max_trials: int | None
) -> dict[str, Any]:
    """Return the fields of a spec's `search` that a command line gives, JSON-ready.

    Args:
        only: comma-separated names.
        exclude: likewise.
        students: comma-separated, as in a spec; a file is relative to the working directory.
        max_trials: as in a spec.
    """
    wishes: dict[str, Any] = {}
    if only is not None:
        wishes["only"] = _listed(only)
    if exclude is not None:
        wishes["exclude"] = _listed(exclude)
    if students is not None:
        wishes["students"] = [_absolute(s) for s in _students(students)]
    if max_trials is not None:
        wishes["max_trials"] = max_trials
    return wishes


def with_wishes(spec: TuningSpec, wishes: Mapping[str, Any]) -> TuningSpec:
    """Return a spec whose `search` has these fields in place of its own.

    Raises:
        SpecError: a field has a value that it cannot have.
    """
    try:
        search = SearchSpec.model_validate({**spec.search.model_dump(mode="json"), **wishes})
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, SearchSpec), where="search") from None
    return spec.model_copy(update={"search": search})


def check_wishes(search: SearchSpec) -> None:
    """Check that `only` and `exclude` name what there is.

    Raises:
        SpecError: a name is unknown.
    """
    techniques = {*TRANSFORM_NAMES} - PLUMBING
    known = sorted({*RUNTIME_NAMES, *techniques, *GROUPS.values(), *SETTINGS, *(p.value for p in Precision), "int8"})
    for name in (*search.only, *search.exclude):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise SpecError(
                f"there is no runtime or technique {name!r}.",
                where="search",
                fix=f"Did you mean `{close[0]}`?" if close else f"There are: {', '.join(known)}.",
            )


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _students(text: str) -> list[str]:
    """Split at commas, but not at the one between a student's width and depth."""
    students: list[str] = []
    for part in _listed(text):
        if students and part.startswith(("width=", "depth=")):
            students[-1] += f",{part}"
        else:
            students.append(part)
    return students


def _absolute(student: str) -> str:
    file, colon, rest = student.partition(":")
    return f"{Path(file).resolve()}{colon}{rest}" if file.endswith(".py") else student
