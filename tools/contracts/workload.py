"""What is tuned: the model as given, its data, and the files that recipes make of it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tools.contracts.base import Contract


class TensorSpec(Contract):
    """One input or output tensor. `shape` leaves out the batch dimension, which always comes first."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class DatasetRef(Contract):
    """Items that were materialized once from the user's data, as `.npy` files in `directory`.

    Files: `<input name>.npy` of shape (n, *shape) for each input, and `targets.npy` when there are targets.
    """

    digest: str
    directory: str
    n: int
    inputs: tuple[TensorSpec, ...]
    has_targets: bool


class Normalization(Contract):
    """How an input was made of 8-bit pixels p: `(p / scale - mean) / std`, by channel."""

    input: str
    mean: tuple[float, ...] = Field(min_length=1)
    """One for each channel, or one for all."""
    std: tuple[float, ...] = Field(min_length=1)
    scale: float = Field(default=255.0, gt=0)
    axis: int = Field(default=1, ge=1)
    """Of the channels, the batch being axis 0."""


class ModelFormat(StrEnum):
    """What an artifact's files are."""

    TORCH = "torch"
    """A Python factory (named in the manifest) and `weights.safetensors`."""
    PT2 = "pt2"
    """`model.pt2`, a program saved by torch.export."""
    TORCHSCRIPT = "torchscript"
    """`model.ts`."""
    ONNX = "onnx"
    """`model.onnx`, all weights inside."""
    OPENVINO = "openvino"
    """`model.xml` and `model.bin`."""


class Precision(StrEnum):
    """The arithmetic that most of the work is done in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    """Products of linear layers in 8-bit floats (E4M3), scaled by rows; the rest in BF16. On GPUs that have them."""
    INT8_DYNAMIC = "int8-dynamic"
    INT8_STATIC = "int8-static"
    INT8_MIXED = "int8-mixed"
    """Calibrated INT8, but for the layers that lose too much by it."""
    INT4_WEIGHTS = "int4-weights"
    """Weights of linear layers in 4 bits; the arithmetic is in float."""

    @property
    def is_float(self) -> bool:
        """Whether it is in floats of 16 bits or more, so that no scale or calibration can go wrong."""
        return self in (Precision.FP32, Precision.BF16, Precision.FP16)


class ArtifactRef(Contract):
    """The files that a recipe produced, named by the digest of their content."""

    digest: str
    directory: str
    format: ModelFormat
    precision: Precision
    size_mb: float
    factory: str | None = None
    """For `torch`: the factory that builds the module which the weights belong to."""
    fixed_batch: int | None = None
    """The only batch size the program accepts, when it was exported with one; None when any will do."""
    student: str | None = None
    """For `torch`: the student that the weights belong to, by its name; None for the model's own architecture."""
    num_classes: int | None = None
    """For `torch`: what the factory is called with as `num_classes`, where it takes that."""
    reshaped: bool = False
    """For `torch`: layers were narrowed or left out. The weights say how (`tools.workloads.structure`)."""
    pixels: Normalization | None = None
    """The program takes 8-bit pixels at this input, and normalizes them by itself; None as the workload's items are."""
    fixed_length: int | None = None
    """The only sequence length the program accepts, when it was exported with one: batches are padded to it."""


class Student(Contract):
    """A smaller architecture that can learn from the model."""

    name: str
    """What a person calls it: `resnet18@width=0.5`, or `width=0.5` for the model's own architecture."""
    factory: str | None = None
    """Builds it, as `file.py:function` (absolute) or `package.module:function`; None for the model's own."""
    code: str | None = None
    """Digest of the factory's source."""
    width: float = Field(default=1.0, gt=0, le=1)
    """Share of each layer's channels that is kept."""
    depth: float = Field(default=1.0, gt=0, le=1)
    """Share of the repeated blocks that is kept."""


class SequenceInfo(Contract):
    """Items of varying length, padded at the end to one. A batch is served no longer than its longest item is."""

    mask: str | None = None
    """The input of shape (n, length) that is 1 where there is a token."""
    input: str | None = None
    """Without a mask: the input that holds `pad` where there is no token."""
    pad: int | float | None = None
    axis: int = Field(default=1, ge=1)
    """Of the inputs and outputs, the batch being axis 0. A mask has it as axis 1."""
    inputs: tuple[str, ...]
    """The inputs with that axis: those that are cut."""
    fill: dict[str, int | float]
    """What stands in each of these inputs where there is no token."""
    outputs: tuple[str, ...] = ()
    """The outputs with that axis: as long as the batch is."""
    length: int = Field(ge=1)
    """What the items are padded to."""


class WorkloadInfo(Contract):
    """A workload after it was loaded: what every later step needs, and no user code."""

    name: str
    digest: str
    source: ArtifactRef
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    evaluation: DatasetRef
    calibration: DatasetRef
    metric: str
    """A built-in metric, or `file.py:function`."""
    higher_is_better: bool
    preprocess: str | None = None
    postprocess: str | None = None
    raw_evaluation: str | None = None
    """The data factory, when preprocessing has to be timed from raw items."""
    parameters: int
    code: dict[str, str] = Field(default_factory=dict)
    """The user's functions by role: name and digest of their source."""
    architecture: str | None = None
    """Qualified class name of a PyTorch model: `torchvision.models.resnet.ResNet`."""
    training: DatasetRef | None = None
    """Items to train with; without them nothing is fine-tuned. No part of the digest: only recipes that train ask."""
    loss: str | None = None
    """A built-in loss, or `file.py:function`, of outputs and targets; None to learn from the model's outputs alone."""
    students: tuple[Student, ...] = ()
    """What may learn from the model."""
    normalization: Normalization | None = None
    """How the items were made of pixels, if they were; no part of the digest: only recipes that fold it in ask."""
    sequence: SequenceInfo | None = None
    """How the items' lengths vary; None for items of one shape."""
    notes: tuple[str, ...] = ()
    """What was decided while loading, in sentences: a calibration split, a limit, a fixed batch."""
