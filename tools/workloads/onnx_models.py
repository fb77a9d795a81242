"""ONNX files as a source: checked, runnable on ONNX Runtime's CPU provider, and written with all weights inside."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.contracts import Precision
from tools.errors import WorkloadError

Array = npt.NDArray[Any]

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_DYNAMIC_INT8 = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
_STATIC_INT8 = {"QuantizeLinear", "QLinearConv", "QLinearMatMul"}


@dataclass(frozen=True)
class Declared:
    """An input as a program declares it. `shape` leaves out the batch; None is any size (or any dtype)."""

    name: str
    dtype: str | None
    shape: tuple[int | None, ...]
    batch: int | None


@dataclass(frozen=True)
class OnnxSource:
    """An ONNX file that ONNX Runtime accepts."""

    file: Path
    model: Any
    session: Any
    external: bool
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch.

        Raises:
            WorkloadError: ONNX Runtime refuses it, or an output is no tensor.
        """
        try:
            values = self.session.run(list(self.outputs), dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise WorkloadError(f"cannot run the data: {_line(error)}.", where=str(self.file)) from error
        for name, value in zip(self.outputs, values, strict=True):
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
                raise WorkloadError(
                    f"the output `{name}` is not a tensor of numbers.",
                    where=str(self.file),
                    fix="Export the model without it (for scikit-learn models: `zipmap=False`).",
                )
        return dict(zip(self.outputs, values, strict=True))

    def write(self, target: Path) -> None:
        """Write the model as one file.

        Raises:
            WorkloadError: it is larger than an ONNX file can be.
        """
        if not self.external:
            shutil.copyfile(self.file, target)
            return
        import onnx

        try:
            onnx.save(self.model, str(target))
        except ValueError as error:
            raise WorkloadError(
                "has more than 2 GB of weights, which cannot be put into one file.", where=str(self.file)
            ) from error

    @property
    def parameters(self) -> int:
        """Number of values in the floating-point and integer weights."""
        return sum(math.prod(tensor.dims) for tensor in self.model.graph.initializer)

    @property
    def precision(self) -> Precision:
        """What most weights are, or the kind of quantization that the graph already has."""
        import onnx

        operators = {node.op_type for node in self.model.graph.node}
        if operators & _DYNAMIC_INT8:
            return Precision.INT8_DYNAMIC
        if operators & _STATIC_INT8:
            return Precision.INT8_STATIC
        counts = dict.fromkeys((Precision.FP32, Precision.FP16, Precision.BF16), 0)
        kinds = {onnx.TensorProto.FLOAT16: Precision.FP16, onnx.TensorProto.BFLOAT16: Precision.BF16}
        for tensor in self.model.graph.initializer:
            counts[kinds.get(tensor.data_type, Precision.FP32)] += math.prod(tensor.dims)
        return max(counts, key=lambda precision: counts[precision])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about the file."""
        notes = []
        if self.external:
            notes.append("The ONNX model's external weights are copied into one file.")
        if not self.precision.is_float:
            notes.append(f"The model as given is quantized already ({self.precision.value}).")
        return tuple(notes)


def open_onnx(file: Path) -> OnnxSource:
    """Read, check and load an ONNX file.

    Raises:
        WorkloadError: it, or a file with its weights, is missing or damaged; it breaks ONNX's rules; or ONNX Runtime
            cannot run it.
    """
    import onnx
    import onnxruntime

    if not file.is_file():
        raise WorkloadError("no such file.", where=str(file), fix="Check `onnx` in the spec.")
    try:
        bare = onnx.load(str(file), load_external_data=False)
        external = any(t.data_location == onnx.TensorProto.EXTERNAL for t in bare.graph.initializer)
        onnx.checker.check_model(str(file))
        model = onnx.load(str(file)) if external else bare
    except Exception as error:  # protobuf's, onnx's C++ and Python errors have no common base
        raise WorkloadError(
            f"is not a valid ONNX file, or is damaged or incomplete ({_line(error)}).",
            where=str(file),
            fix="Export it again, and keep the files with its weights beside it.",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise WorkloadError(f"ONNX Runtime cannot load it: {_line(error)}.", where=str(file)) from error
    return OnnxSource(
        file=file,
        model=model,
        session=session,
        external=external,
        inputs=tuple(_declared(value, file) for value in session.get_inputs()),
        outputs=tuple(value.name for value in session.get_outputs()),
    )


def _declared(value: Any, file: Path) -> Declared:
    if value.type not in _DTYPES or not value.shape:
        raise WorkloadError(
            f"the input `{value.name}` is {value.type} of shape {value.shape}; a batch of numbers is expected.",
            where=str(file),
        )
    sizes = [size if isinstance(size, int) and size > 0 else None for size in value.shape]
    return Declared(name=value.name, dtype=_DTYPES[value.type], shape=tuple(sizes[1:]), batch=sizes[0])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
