"""What the parts of a spec have in common: finite numbers, and paths that are relative to the spec's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, ConfigDict, ValidationInfo

from tools.contracts import Contract


class SpecPart(Contract):
    """Base of the spec's parts: numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


def resolved_path(value: str, info: ValidationInfo) -> str:
    """Return a path as an absolute one, if the folder that it is relative to is known."""
    base = _base(info)
    return value if base is None else str((base / value).resolve())


def check_code_reference(value: str) -> None:
    """Check that this names a function.

    Raises:
        ValueError: it is neither `path/to/file.py:function` nor `package.module:function`.
    """
    module, separator, function = value.rpartition(":")
    if not separator or not module or not function.isidentifier():
        msg = f"{value!r} must look like path/to/file.py:function or package.module:function"
        raise ValueError(msg)


def code_reference(value: str, info: ValidationInfo) -> str:
    """Check that this names a function, and return it with the file that it is in as an absolute path.

    Raises:
        ValueError: it is neither `path/to/file.py:function` nor `package.module:function`.
    """
    check_code_reference(value)
    base = _base(info)
    module, _, function = value.rpartition(":")
    if base is None or not module.endswith(".py"):
        return value
    return f"{(base / module).resolve()}:{function}"


PathText: TypeAlias = Annotated[str, AfterValidator(resolved_path)]
"""A path; absolute once the spec is loaded."""

CodeText: TypeAlias = Annotated[str, AfterValidator(code_reference)]
"""A function by file or module; the file's path is absolute once the spec is loaded."""


def _base(info: ValidationInfo) -> Path | None:
    """Return the folder of the spec that is being read; None where a spec comes back from a journal, resolved."""
    base = (info.context or {}).get("base")
    return base if isinstance(base, Path) else None
