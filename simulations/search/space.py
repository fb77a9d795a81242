"""What can be searched: the factors of a cell, their levels, which of them go together, and what has to be built."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

from tools.contracts import JsonScalar, Precision, Recipe, Step

TEACHER = "resnet50"
STUDENTS = (TEACHER, "resnet18", "resnet18@width=0.5", "resnet18@width=0.25")
"""The model as given, and smaller ones that learn from it."""
FORMATS = (
    "eager fp32",
    "eager bf16",
    "onnxruntime fp32",
    "onnxruntime int8-static",
    "openvino fp32",
    "openvino bf16",
    "openvino int8-static",
)
"""A runtime and a precision that it can run: of the nine pairs of these, two do not exist."""
THREADS = (1, 2)
BATCHES = (1, 2, 4, 8, 16, 32, 64)

_PREPARATIONS: dict[str, tuple[str, ...]] = {
    "eager fp32": (),
    "eager bf16": ("cast",),
    "onnxruntime fp32": ("export-onnx",),
    "onnxruntime int8-static": ("export-onnx", "quantize-static"),
    "openvino fp32": ("export-onnx", "convert-openvino"),
    "openvino bf16": ("export-onnx", "convert-openvino"),
    "openvino int8-static": ("export-onnx", "convert-openvino", "quantize-nncf"),
}
_DISTILL = "distill"
_JUDGE = "accuracy"


@dataclass(frozen=True, order=True)
class Cell:
    """One point of the grid.

    Attributes:
        student: who answers.
        runtime: what runs it.
        precision: of its arithmetic.
        threads: CPU threads of the runtime.
        batch: items in a call.
    """

    student: str
    runtime: str
    precision: str
    threads: int
    batch: int

    @property
    def format(self) -> str:
        """Runtime and precision in one, as in `FORMATS`."""
        return f"{self.runtime} {self.precision}"

    @property
    def key(self) -> str:
        """Its name: `resnet18 openvino int8-static threads=2 batch=8`."""
        return f"{self.student} {self.format} threads={self.threads} batch={self.batch}"

    @property
    def is_valid(self) -> bool:
        """Whether such a cell can exist: all levels are known, and the runtime runs the precision."""
        known = self.student in STUDENTS and self.threads in THREADS and self.batch in BATCHES
        return known and self.format in FORMATS

    @property
    def steps(self) -> tuple[str, ...]:
        """Transforms that make what the cell runs, in order."""
        distilled = () if self.student == TEACHER else (_DISTILL,)
        return (*distilled, *_PREPARATIONS[self.format])

    @property
    def builds(self) -> tuple[str, ...]:
        """Names of the build steps, in order; cells that share a step share its name."""
        return tuple(f"{self.student}: {' + '.join(self.steps[: n + 1])}" for n in range(len(self.steps)))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all that is paid once, whoever needs it first: the builds, and judging the format's accuracy."""
        return (*self.builds, self.judgement)

    @property
    def judgement(self) -> str:
        """Name of the part that judges accuracy: neither batch nor threads change what a model answers."""
        return f"{self.student}: {_JUDGE} of {self.format}"


BASELINE = Cell(TEACHER, "eager", "fp32", max(THREADS), 1)
"""The model as given: every session measures it first, since accuracy drops are paired with it."""


def cell_of(*, student: str, form: str, threads: int, batch: int) -> Cell:
    """Return the cell of these levels; `form` is one of `FORMATS`."""
    runtime, _, precision = form.partition(" ")
    return Cell(student, runtime, precision, threads, batch)


@cache
def all_cells() -> tuple[Cell, ...]:
    """Return every valid cell, in the order of the factors."""
    return tuple(
        cell_of(student=student, form=form, threads=threads, batch=batch)
        for student, form, threads, batch in itertools.product(STUDENTS, FORMATS, THREADS, BATCHES)
    )


def kind_of(part: str) -> str:
    """Return what kind of work a part is: the name of its last transform, or `accuracy`."""
    what = part.partition(": ")[2]
    return _JUDGE if what.startswith(_JUDGE) else what.rpartition(" + ")[2]


def step_of(part: str, *, distill_s: float, seed: int = 0) -> Step:
    """Return the last step of a build.

    Args:
        part: one of a cell's `builds`.
        distill_s: how long training a student may take.
        seed: of the training.
    """
    student, _, _ = part.partition(": ")
    kind = kind_of(part)
    settings: dict[str, dict[str, JsonScalar]] = {
        _DISTILL: {"student": student, "max_s": distill_s, "seed": seed},
        "cast": {"precision": Precision.BF16.value},
    }
    return Step(transform=kind, settings=settings.get(kind, {}))


def recipe_of(cell: Cell, *, distill_s: float) -> Recipe:
    """Return the recipe that a cell is measured with."""
    return Recipe(
        steps=tuple(step_of(part, distill_s=distill_s) for part in cell.builds),
        runtime=cell.runtime,
        precision=Precision(cell.precision),
    )
