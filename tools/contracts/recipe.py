"""What can be tried: ordered transforms, then a runtime and its settings."""

from __future__ import annotations

from pydantic import Field

from tools.contracts.base import Contract, JsonScalar, digest_of
from tools.contracts.workload import Precision


class Step(Contract):
    """One transform with its settings."""

    transform: str
    settings: dict[str, JsonScalar] = Field(default_factory=dict)


class Recipe(Contract):
    """Ordered transforms, then a runtime and its settings."""

    steps: tuple[Step, ...] = ()
    runtime: str
    precision: Precision = Precision.FP32
    settings: dict[str, JsonScalar] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it: `onnxruntime int8-static`, with settings that differ from the default."""
        settings = [*(step.settings for step in self.steps), self.settings]
        extras = [f"{k}={v}" for part in settings for k, v in sorted(part.items()) if k != "precision"]
        return " ".join([self.runtime, self.precision.value, *extras])

    @property
    def complexity(self) -> tuple[int, int]:
        """Order for ties: fewer transforms first, then float before integer."""
        return (len(self.steps), 0 if self.precision.is_float else 1)

    @property
    def digest(self) -> str:
        """Name of the recipe in the evidence store."""
        return digest_of(self.model_dump(mode="json"))
