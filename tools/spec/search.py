"""The part of a spec about what the search may try."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from tools.contracts import Student
from tools.spec.parts import SpecPart, check_code_reference, code_reference

SAME = "same"
"""A student of the model's own architecture."""


class SearchSpec(SpecPart):
    """What the search may try. Without it: everything that can run here."""

    only: tuple[str, ...] = Field((), description="names of runtimes and techniques; all others are left out")
    exclude: tuple[str, ...] = Field((), description="names of runtimes and techniques that are left out")
    students: tuple[str, ...] | None = Field(
        None,
        description="architectures that may learn from the model, as package.module:function or file.py:function, each "
        "with @width=0.5,depth=0.5 where it is to be narrower or shallower; `same@width=0.5` is the model's own. "
        "Default: smaller ones of its family, where they are known",
    )
    max_trials: int | None = Field(
        None, ge=1, description="try so many candidates at most; measuring more batch sizes is no trial"
    )

    @field_validator("students")
    @classmethod
    def _student(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        for student in value or ():
            parse_student(student)
        return None if value is None else tuple(_resolved(student, info) for student in value)


def parse_student(text: str) -> Student:
    """Read `torchvision.models:resnet18`, `students.py:small@width=0.5` or `same@width=0.5,depth=0.5`.

    Raises:
        ValueError: it is none of these, or a factor is not above 0 and at most 1.
    """
    reference, _, factors = text.partition("@")
    shares: dict[str, float] = {}
    for factor in filter(None, factors.split(",")):
        name, _, number = factor.partition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError:
            msg = f"student {text!r}: {factor!r} is not width=NUMBER or depth=NUMBER"
            raise ValueError(msg) from None
    if not set(shares) <= {"width", "depth"} or not all(0 < share <= 1 for share in shares.values()):
        msg = f"student {text!r}: give width and depth only, each above 0 and at most 1"
        raise ValueError(msg)
    if reference == SAME:
        if all(share == 1 for share in shares.values()):
            msg = f"student {text!r} is the model itself: make it smaller, as in same@width=0.5"
            raise ValueError(msg)
        return Student(name=factors, **shares)
    check_code_reference(reference)
    name = reference.rpartition(":")[2]
    return Student(name=f"{name}@{factors}" if factors else name, factory=reference, **shares)


def _resolved(student: str, info: ValidationInfo) -> str:
    reference, at, factors = student.partition("@")
    return student if reference == SAME else f"{code_reference(reference, info)}{at}{factors}"
