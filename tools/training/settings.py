"""What can be set about a training, checked. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import Field, ValidationError

from tools.contracts import JsonScalar
from tools.contracts.base import Contract
from tools.errors import TransformError
from tools.spec import describe_validation_error


class TrainingSettings(Contract):
    """The settings that every transform that trains has."""

    epochs: int = Field(20, ge=1, description="passes over the training items, where they fit into `max_s`")
    max_s: float = Field(120.0, gt=0, description="the schedule is planned to take no more seconds than this")
    batch: int = Field(32, ge=2, description="items a step; fewer where there are few items")
    learning_rate: float = Field(1e-3, gt=0, description="the highest one of the cycle, of AdamW")
    temperature: float = Field(4.0, gt=0, description="softens the distributions over classes that are compared")
    alpha: float = Field(0.7, ge=0, le=1, description="weight of the original's outputs; the rest goes to the targets")
    enough: float = Field(
        0.005, ge=0, description="in the metric's unit: coming this close to the original twice ends the training"
    )
    features: bool = Field(default=False, description="learn from the input of the original's last linear layer too")
    seed: int = 0


Settings = TypeVar("Settings", bound=Contract)


def read_settings(model: type[Settings], given: Mapping[str, JsonScalar], transform: str) -> Settings:
    """Check a step's settings.

    Raises:
        TransformError: one is unknown, missing or out of bounds.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise TransformError(describe_validation_error(error, model), where=f"settings of {transform}") from None
