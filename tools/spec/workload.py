"""The part of a spec about the model: where it is, what to feed it, and how to score it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tools.spec.parts import CodeText, PathText, SpecPart, code_reference

BUILTIN_METRICS = ("top1", "top5", "mse", "cosine")
BUILTIN_LOSSES = ("cross_entropy", "mse")


class ModelSpec(SpecPart):
    """The model: exactly one of the four sources."""

    factory: CodeText | None = Field(
        None, description="Python function that returns a torch.nn.Module, as file.py:function"
    )
    onnx: PathText | None = Field(None, description="ONNX file")
    pt2: PathText | None = Field(None, description="program saved by torch.export.save")
    torchscript: PathText | None = Field(None, description="file saved by torch.jit.save")
    weights: PathText | None = Field(
        None, description="for a factory: .safetensors, or a .pt state dict that loads with weights_only=True"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in ("factory", "onnx", "pt2", "torchscript") if getattr(self, k) is not None]
        if len(given) != 1:
            found = "none" if not given else ", ".join(given)
            msg = f"give exactly one of factory, onnx, pt2, torchscript (found: {found})"
            raise ValueError(msg)
        if self.weights is not None and self.factory is None:
            msg = "weights belong to a factory; the other sources carry their own"
            raise ValueError(msg)
        return self


class DataSpec(SpecPart):
    """Items to run: exactly one of a factory and an .npz file."""

    factory: CodeText | None = Field(
        None, description="Python function that yields (inputs, targets) batches, as file.py:function"
    )
    npz: PathText | None = Field(
        None, description=".npz with `inputs` (or one array per input name) and, for most metrics, `targets`"
    )
    limit: int | None = Field(None, ge=1, description="use at most this many items")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.factory is None) == (self.npz is None):
            msg = "give exactly one of factory and npz"
            raise ValueError(msg)
        return self


class SequenceSpec(SpecPart):
    """Items of varying length, padded at the end to one: how to tell how long an item is."""

    mask: str | None = Field(None, description="name of the input of shape (n, length) that is 1 where a token is")
    pad: int | float | None = Field(None, description="without a mask: the value where there is no token, in `input`")
    input: str | None = Field(None, description="name of the input that `pad` is looked for in")
    axis: int = Field(1, ge=1, description="axis of the inputs along which the length varies; 0 is the batch")
    inputs: tuple[str, ...] | None = Field(
        None, description="names of the inputs with that axis; default: all that are as long as the mask there"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.mask is None) == (self.pad is None):
            msg = "give exactly one of mask and pad"
            raise ValueError(msg)
        if (self.pad is None) != (self.input is None):
            msg = "`pad` and `input` go together: the value, and the input that holds it"
            raise ValueError(msg)
        return self


class NormalizationSpec(SpecPart):
    """Items that are normalized 8-bit images: `(pixel / scale - mean) / std`. A model may then be served the pixels."""

    mean: tuple[float, ...] = Field(min_length=1, description="of each channel, or one number for all")
    std: tuple[float, ...] = Field(min_length=1, description="of each channel, or one number for all")
    scale: float = Field(255.0, gt=0, description="what pixels are divided by first")
    axis: int = Field(1, ge=1, description="axis of the channels; 0 is the batch")
    input: str | None = Field(None, description="name of the input, if there are several")

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(number > 0 for number in value):
            msg = "each must be above 0"
            raise ValueError(msg)
        return value


class WorkloadSpec(SpecPart):
    """The model, what to feed it, and how to score it."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    model: ModelSpec
    evaluation: DataSpec
    calibration: DataSpec | None = Field(
        None, description="for static quantization; default: a part of the evaluation data, then held out from it"
    )
    training: DataSpec | None = Field(
        None,
        description="to fine-tune and distil with; targets are needed for `loss` only. Default: nothing is trained",
    )
    loss: str | None = Field(
        None,
        description="cross_entropy, mse, or file.py:function(outputs, targets) -> scalar tensor, of tensors; "
        "default: students learn from the model's outputs alone",
    )
    metric: str = Field("top1", description="top1, top5, mse, cosine, or file.py:function(outputs, targets) -> scores")
    higher_is_better: bool | None = Field(
        None, description="only for a metric of your own; the built-in ones know (default: true)"
    )
    preprocess: CodeText | None = Field(
        None, description="file.py:function(raw) -> inputs; then the evaluation data are raw items, and it is timed"
    )
    postprocess: CodeText | None = Field(None, description="file.py:function(outputs) -> answer; timed in the profile")
    normalization: NormalizationSpec | None = Field(
        None,
        description="if the items are normalized 8-bit images: how, so that a model can be made to take the pixels",
    )
    sequence: SequenceSpec | None = Field(
        None, description="for items of varying length, as texts are: batches are then served as long as their longest"
    )

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str, info: ValidationInfo) -> str:
        return _builtin_or_code("metric", value, BUILTIN_METRICS, info)

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _builtin_or_code("loss", value, BUILTIN_LOSSES, info)


def _builtin_or_code(kind: str, value: str, builtin: tuple[str, ...], info: ValidationInfo) -> str:
    if value in builtin:
        return value
    if ":" not in value:
        msg = f"unknown {kind} {value!r}: use one of {', '.join(builtin)}, or file.py:function"
        raise ValueError(msg)
    return code_reference(value, info)
