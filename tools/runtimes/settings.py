"""Settings of runtimes: what a recipe may say about how its model is run, read and checked in one place."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools.contracts import Recipe
from tools.errors import TransformError


class RuntimeSettings(BaseModel):
    """All settings that any runtime understands; each says which of them are its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    threads: int = Field(ge=1, description="CPU threads in all; those of a replica unless the recipe asks for fewer.")
    streams: int = Field(
        default=1,
        ge=1,
        description="A batch is split into this many nearly equal parts, which run at the same time on their share of "
        "the threads. A batch of fewer items has as many parts as items.",
    )
    arena: bool = Field(
        default=True, description="ONNX Runtime keeps freed memory for the next run; without, peak memory is lower."
    )
    execution: Literal["sequential", "parallel"] = Field(
        default="sequential", description="Whether ONNX Runtime runs independent branches of the graph side by side."
    )
    spinning: bool = Field(
        default=True,
        description="ONNX Runtime's threads wait for work in a loop: faster, but a core is busy that others may need.",
    )
    level: Literal["disabled", "basic", "extended", "all"] = Field(
        default="all", description="ONNX Runtime's graph optimizations."
    )
    channels_last: bool = Field(
        default=False, description="Images and convolution weights lie in memory as (N, H, W, C)."
    )
    fuse: bool = Field(default=False, description="Batch normalizations are merged into the layers before them.")


def read_settings(recipe: Recipe, understood: frozenset[str], *, threads: int) -> RuntimeSettings:
    """Check a recipe's settings and fill in the defaults.

    Args:
        recipe: whose settings.
        understood: the names that its runtime knows.
        threads: CPU threads that a replica has.

    Raises:
        TransformError: a setting is unknown to the runtime, of the wrong kind or out of range, or it asks for what
            makes no sense together.
    """
    unknown = sorted(set(recipe.settings) - understood)
    if unknown:
        raise TransformError(
            f"the runtime {recipe.runtime} has no setting {unknown[0]!r}.",
            fix=f"Known: {', '.join(sorted(understood)) or 'none'}.",
        )
    try:
        settings = RuntimeSettings.model_validate({"threads": threads, **recipe.settings})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = first["loc"][0]
        raise TransformError(
            f"the setting {name}={first['input']!r} of the runtime {recipe.runtime} is not right: {first['msg']}."
        ) from None
    if settings.threads > threads:
        raise TransformError(f"threads={settings.threads} is more than the {threads} that a replica has.")
    if settings.streams > settings.threads:
        raise TransformError(f"streams={settings.streams} needs as many threads, and there are {settings.threads}.")
    if settings.execution == "parallel" and settings.threads == 1:
        raise TransformError("execution=parallel needs two threads at least.")
    return settings
