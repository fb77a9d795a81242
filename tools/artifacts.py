"""Artifacts on disk: directories named by the digest of their content, written aside and then renamed.

A directory under `artifacts/` is therefore complete or absent, whatever happens while it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.contracts import ArtifactRef, ModelFormat, Precision
from tools.errors import StorageError

MANIFEST = "artifact.json"
_MODEL_FILES = {
    ModelFormat.TORCH: "weights.safetensors",
    ModelFormat.PT2: "model.pt2",
    ModelFormat.TORCHSCRIPT: "model.ts",
    ModelFormat.ONNX: "model.onnx",
    ModelFormat.OPENVINO: "model.xml",
}


def model_file(artifact: ArtifactRef) -> Path:
    """Return the file that a runtime opens."""
    return Path(artifact.directory) / _MODEL_FILES[artifact.format]


def model_file_name(model_format: ModelFormat) -> str:
    """Return the name that the main file of this format has inside its directory."""
    return _MODEL_FILES[model_format]


def write_directory(root: Path, fill: Callable[[Path], None]) -> tuple[str, Path]:
    """Make a content-addressed directory below `root`.

    Args:
        root: where directories named by digest live.
        fill: writes the files into the empty folder it is given.

    Returns:
        The digest and the final path. An identical directory that is already there is kept; one of that name whose
        files were damaged since is set aside.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    except OSError as error:
        raise _storage_error(root, error) from None
    try:
        fill(aside)
        digest = digest_directory(aside)
        _sync(aside)
        final = root / digest
        if final.exists() and not is_intact(final, digest):
            set_aside(final)
        if not final.exists():
            try:
                aside.rename(final)
            except OSError:
                if not final.exists():  # else: another process made the same content meanwhile
                    raise
        sync_folder(root)
    except OSError as error:
        raise _storage_error(root, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return digest, final


def write_artifact(
    root: Path,
    model_format: ModelFormat,
    precision: Precision,
    fill: Callable[[Path], None],
    *,
    factory: str | None = None,
    code: str | None = None,
    fixed_batch: int | None = None,
    like: ArtifactRef | None = None,
    student: str | None = None,
    num_classes: int | None = None,
    reshaped: bool = False,
) -> ArtifactRef:
    """Make an artifact whose model file `fill` writes into the folder it is given, named as in `model_file_name`.

    Args:
        root: where artifacts live.
        model_format: what is written.
        precision: of the arithmetic in it.
        fill: writes the model file.
        factory: for `torch`, what builds the module. Where its file lies does not count towards the digest.
        code: digest of the factory's source, which does.
        fixed_batch: the only batch size that the program takes.
        like: for `torch`, another artifact of the same structure: what is not said otherwise is taken from it.
        student: for `torch`, whose weights these are.
        num_classes: for `torch`, what its factory is called with.
        reshaped: for `torch`, whether layers were narrowed or left out.
    """
    if like is not None:
        factory, student = factory or like.factory, student or like.student
        num_classes = num_classes or like.num_classes
        fixed_batch, reshaped = fixed_batch or like.fixed_batch, reshaped or like.reshaped
    structure = {"student": student, "num_classes": num_classes, "reshaped": reshaped or None}
    manifest = {
        "format": model_format.value,
        "precision": precision.value,
        "code": code,
        "fixed_batch": fixed_batch,
        **{name: value for name, value in structure.items() if value is not None},
    }

    def fill_with_manifest(folder: Path) -> None:
        fill(folder)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))

    digest, path = write_directory(root, fill_with_manifest)
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and f.name != MANIFEST)
    return ArtifactRef(
        digest=digest,
        directory=str(path),
        format=model_format,
        precision=precision,
        size_mb=size / 1e6,
        factory=factory,
        fixed_batch=fixed_batch,
        student=student,
        num_classes=num_classes,
        reshaped=reshaped,
    )


def is_intact(folder: Path, digest: str) -> bool:
    """Whether the files below a content-addressed directory are still what its name says; reads all of them."""
    try:
        return digest_directory(folder) == digest
    except OSError:
        return False


def set_aside(folder: Path) -> Path:
    """Move a damaged directory out of the way, so that the content can be made again; returns where it is now.

    Raises:
        StorageError: the folder cannot be renamed.
    """
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".damaged-{folder.name}-", dir=folder.parent))
        folder.rename(aside)  # over the empty folder
    except OSError as error:
        raise _storage_error(folder, error) from None
    return aside


def digest_directory(folder: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 over names and contents of all files below `folder`."""
    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(file.relative_to(folder)).encode() + b"\0")
        total.update(digest_file(file).encode())
    return total.hexdigest()[:16]


def digest_file(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file aside, sync and rename it: readers see the old or the new content, never a part.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        aside = Path(name)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.chmod(0o644)
        aside.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        if aside is not None:
            aside.unlink(missing_ok=True)
        raise _storage_error(path, error) from None


def sync_folder(folder: Path) -> None:
    """Make a rename inside this folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    sync_folder(folder)


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot be written ({error.strerror or error}).",
        where=str(path),
        fix="Free some space, or point INFERTUNE_HOME to a folder that you can write.",
    )
