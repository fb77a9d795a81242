"""`tuning.yaml`: what a person asks for, validated before anything is loaded.

Paths in a spec are relative to the spec's own folder. Code is named as `path/to/file.py:function` or
`package.module:function`.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from tools.contracts import Contract, Student
from tools.errors import SpecError

BUILTIN_METRICS = ("top1", "top5", "mse", "cosine")
BUILTIN_LOSSES = ("cross_entropy", "mse")


class SpecPart(Contract):
    """Base of the spec's parts: numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class ModelSpec(SpecPart):
    """The model: exactly one of the four sources."""

    factory: str | None = Field(None, description="Python function that returns a torch.nn.Module, as file.py:function")
    onnx: str | None = Field(None, description="ONNX file")
    pt2: str | None = Field(None, description="program saved by torch.export.save")
    torchscript: str | None = Field(None, description="file saved by torch.jit.save")
    weights: str | None = Field(
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
        if self.factory is not None:
            _check_code_reference(self.factory)
        return self


class DataSpec(SpecPart):
    """Items to run: exactly one of a factory and an .npz file."""

    factory: str | None = Field(
        None, description="Python function that yields (inputs, targets) batches, as file.py:function"
    )
    npz: str | None = Field(
        None, description=".npz with `inputs` (or one array per input name) and, for most metrics, `targets`"
    )
    limit: int | None = Field(None, ge=1, description="use at most this many items")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.factory is None) == (self.npz is None):
            msg = "give exactly one of factory and npz"
            raise ValueError(msg)
        if self.factory is not None:
            _check_code_reference(self.factory)
        return self


class Objective(SpecPart):
    """What to minimize, and the promises that must hold meanwhile."""

    minimize: Literal["cost", "latency", "size"] = Field("cost", description="cost per 1,000 requests, p50, or size")
    p99_ms: float | None = Field(None, gt=0, description="latency SLO: the slowest 1 % may take at most this long")
    max_accuracy_drop: float = Field(
        0.01, ge=0, description="in the metric's unit, against the model as given: 0.01 is one point of top1"
    )
    max_memory_mb: float | None = Field(None, gt=0, description="peak resident memory of a replica")
    max_size_mb: float | None = Field(None, gt=0, description="size of the artifact on disk")


class HardwareSpec(SpecPart):
    """What the machine costs."""

    price_per_hour_usd: float = Field(gt=0, description="price of one replica's machine (or its share of it) per hour")
    name: str | None = Field(None, description="what you call this machine, e.g. the instance type")
    threads: int | None = Field(None, ge=1, description="CPU threads of a replica; default: all this machine offers")


class TrafficSpec(SpecPart):
    """How many requests come: exactly one of a trace and a constant rate."""

    trace: str | None = Field(None, description="CSV with the columns `second` (since midnight) and `rps`")
    rate_rps: float | None = Field(None, gt=0, description="constant rate in requests per second")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.trace is None) == (self.rate_rps is None):
            msg = "give exactly one of trace and rate_rps"
            raise ValueError(msg)
        return self


class HpaSpec(SpecPart):
    """The HorizontalPodAutoscaler in use today."""

    file: str = Field(description="YAML file with one autoscaling/v2 HorizontalPodAutoscaler")


class BudgetSpec(SpecPart):
    """What the session itself may cost."""

    time_s: float = Field(900.0, gt=0, description="stop proposing new trials when this is nearly used up")
    trial_s: float = Field(300.0, gt=0, description="kill a single trial after this long")
    trial_memory_mb: float | None = Field(
        None, gt=0, description="kill a single trial that takes more memory than this; default: 80 % of the machine's"
    )
    tolerate_noise: bool = Field(
        default=False,
        description="keep what was timed while other processes took the CPUs: wider intervals in place of UNSTABLE",
    )


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
    max_trials: int | None = Field(None, ge=1, description="stop after this many trials")

    @field_validator("students")
    @classmethod
    def _student(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for student in value or ():
            parse_student(student)
        return value


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
    preprocess: str | None = Field(
        None, description="file.py:function(raw) -> inputs; then the evaluation data are raw items, and it is timed"
    )
    postprocess: str | None = Field(None, description="file.py:function(outputs) -> answer; timed in the profile")
    sequence: SequenceSpec | None = Field(
        None, description="for items of varying length, as texts are: batches are then served as long as their longest"
    )

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in BUILTIN_METRICS:
            if ":" not in value:
                msg = f"unknown metric {value!r}: use one of {', '.join(BUILTIN_METRICS)}, or file.py:function"
                raise ValueError(msg)
            _check_code_reference(value)
        return value

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str | None) -> str | None:
        if value is not None and value not in BUILTIN_LOSSES:
            if ":" not in value:
                msg = f"unknown loss {value!r}: use one of {', '.join(BUILTIN_LOSSES)}, or file.py:function"
                raise ValueError(msg)
            _check_code_reference(value)
        return value

    @field_validator("preprocess", "postprocess")
    @classmethod
    def _code(cls, value: str | None) -> str | None:
        if value is not None:
            _check_code_reference(value)
        return value


class TuningSpec(SpecPart):
    """The whole of `tuning.yaml`."""

    version: Literal[1] = 1
    workload: WorkloadSpec
    objective: Objective = Objective()
    hardware: HardwareSpec
    traffic: TrafficSpec | None = None
    hpa: HpaSpec | None = None
    budget: BudgetSpec = BudgetSpec()
    search: SearchSpec = SearchSpec()
    seed: int = 0


def load_spec(path: Path) -> TuningSpec:
    """Read and validate a spec; file references come back absolute.

    Raises:
        SpecError: the file is missing, is no YAML, or a field is unknown, ill-typed or out of bounds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            "no such file.", where=str(path), fix="`infertune init` writes a commented spec to start from."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error}).", where=str(path)) from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"is not valid YAML: {_one_line(error)}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise SpecError("must be a mapping with at least `workload` and `hardware`.", where=str(path))
    try:
        spec = TuningSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, TuningSpec), where=str(path)) from None
    return _absolute(spec, path.resolve().parent)


def describe_validation_error(error: ValidationError, model: type[Contract]) -> str:
    """Turn pydantic's errors into sentences that name the field and, for a typo, the likely one."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "the top level"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            names = _fields_at(model, item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
            message = "unknown field." + (f" Did you mean `{close[0]}`?" if close else f" Known: {', '.join(names)}.")
        elif item["type"] == "missing":
            message = "is missing."
        elif item["type"] != "value_error":
            message = f"{message} (found {item['input']!r})."
        lines.append(f"{where}: {message}")
    return "; ".join(lines)


def _fields_at(model: type[Contract], location: tuple[Any, ...]) -> list[str]:
    """Names of the fields that the model at `location` below `model` knows."""
    current: type[Contract] = model
    for part in location:
        field = current.model_fields.get(str(part))
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        below = [c for c in candidates if isinstance(c, type) and issubclass(c, Contract)]
        if not below:
            return []
        current = below[0]
    return sorted(current.model_fields)


def _absolute(spec: TuningSpec, base: Path) -> TuningSpec:
    """Resolve every path of the spec against the spec's folder."""

    def path(value: str | None) -> str | None:
        return None if value is None else str((base / value).resolve())

    def code(value: str | None) -> str | None:
        if value is None or value in (*BUILTIN_METRICS, *BUILTIN_LOSSES):
            return value
        file, _, function = value.rpartition(":")  # what follows a function's name (a student's factors) stays
        return f"{(base / file).resolve()}:{function}" if file.endswith(".py") else value

    def data(value: DataSpec | None) -> DataSpec | None:
        if value is None:
            return None
        return value.model_copy(update={"factory": code(value.factory), "npz": path(value.npz)})

    workload = spec.workload
    model = workload.model.model_copy(
        update={
            "factory": code(workload.model.factory),
            **{k: path(getattr(workload.model, k)) for k in ("onnx", "pt2", "torchscript", "weights")},
        }
    )
    workload = workload.model_copy(
        update={
            "model": model,
            "evaluation": data(workload.evaluation),
            "calibration": data(workload.calibration),
            "training": data(workload.training),
            "loss": code(workload.loss),
            "metric": code(workload.metric),
            "preprocess": code(workload.preprocess),
            "postprocess": code(workload.postprocess),
        }
    )
    update: dict[str, Any] = {"workload": workload}
    if spec.search.students is not None:
        students = tuple(s if s.startswith(SAME) else str(code(s)) for s in spec.search.students)
        update["search"] = spec.search.model_copy(update={"students": students})
    if spec.traffic is not None and spec.traffic.trace is not None:
        update["traffic"] = spec.traffic.model_copy(update={"trace": path(spec.traffic.trace)})
    if spec.hpa is not None:
        update["hpa"] = spec.hpa.model_copy(update={"file": path(spec.hpa.file)})
    return spec.model_copy(update=update)


SAME = "same"
"""A student of the model's own architecture."""


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
    _check_code_reference(reference)
    name = reference.rpartition(":")[2]
    return Student(name=f"{name}@{factors}" if factors else name, factory=reference, **shares)


def _check_code_reference(value: str) -> None:
    module, separator, function = value.rpartition(":")
    if not separator or not module or not function.isidentifier():
        msg = f"{value!r} must look like path/to/file.py:function or package.module:function"
        raise ValueError(msg)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def spec_schema() -> dict[str, Any]:
    """Return the JSON schema of `tuning.yaml`, for editors."""
    schema = TuningSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "infertune tuning spec", **schema}
