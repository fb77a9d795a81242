"""What can be tried: ordered transforms, then a runtime and its settings."""

from __future__ import annotations

from pydantic import Field

from tools.contracts.base import Contract, JsonScalar, digest_of
from tools.contracts.workload import Precision


class Step(Contract):
    """One transform with its settings."""

    transform: str
    settings: dict[str, JsonScalar] = Field(default_factory=dict)


_RESHAPING = ("distill", "prune", "finetune")
_IMPLIED = ("max_s", "seed", "precision", "normalization")
"""Settings that follow from the session, and would only make names long."""


def _told(step: Step) -> str:
    extras = [str(v) if k == "student" else f"{k}={v}" for k, v in sorted(step.settings.items()) if k not in _IMPLIED]
    return " ".join([step.transform, *extras])


class Recipe(Contract):
    """Ordered transforms, then a runtime and its settings."""

    steps: tuple[Step, ...] = ()
    runtime: str
    precision: Precision = Precision.FP32
    settings: dict[str, JsonScalar] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it: `onnxruntime int8-static`, with settings that differ from the default.

        What was done to the model itself comes first: `distill resnet18, openvino int8-static`.
        """
        settings = [*(s.settings for s in self.steps if not s.transform.startswith(_RESHAPING)), self.settings]
        extras = [f"{k}={v}" for part in settings for k, v in sorted(part.items()) if k not in _IMPLIED]
        pixels = ["from pixels"] if any(s.transform.startswith("fold") for s in self.steps) else []
        run = " ".join([self.runtime, self.precision.value, *extras, *pixels])
        return f"{self.variant}, {run}" if self.variant else run

    @property
    def variant(self) -> str:
        """What was done to the model itself: `distill resnet18`; empty for the model as given."""
        return ", ".join(_told(step) for step in self.steps if step.transform.startswith(_RESHAPING))

    @property
    def complexity(self) -> tuple[int, int]:
        """Order for ties: fewer transforms first, then float before integer."""
        return (len(self.steps), 0 if self.precision.is_float else 1)

    @property
    def digest(self) -> str:
        """Name of the recipe in the evidence store."""
        return digest_of(self.model_dump(mode="json"))
