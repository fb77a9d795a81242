"""Writing a tree of files: a new folder appears whole, and a file that is there is replaced only if that was asked."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.artifacts import sync_folder
from tools.errors import SpecError, StorageError


@dataclass(frozen=True)
class Comparison:
    """How a tree differs from what is on disk; paths as in the tree."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    diff: str
    """Unified, of the changed files."""

    @property
    def is_same(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.added or self.changed)


def compare(files: dict[str, str], folder: Path) -> Comparison:
    """Say what writing these files below a folder would change.

    Raises:
        SpecError: something else than a text file is in the way.
        StorageError: a file cannot be read.
    """
    added: list[str] = []
    changed: list[str] = []
    diffs: list[str] = []
    for path, text in files.items():
        old = _read(folder / path)
        if old is None:
            added.append(path)
        elif old != text:
            changed.append(path)
            diffs += difflib.unified_diff(
                old.splitlines(keepends=True), text.splitlines(keepends=True), fromfile=f"a/{path}", tofile=f"b/{path}"
            )
    return Comparison(added=tuple(added), changed=tuple(changed), diff="".join(diffs))


def write_tree(files: dict[str, str], folder: Path, *, force: bool = False) -> Comparison:
    """Write files below a folder; what else is there stays.

    A folder that is not there, or is empty, appears with all of them by one rename. Into a folder with files they are
    renamed one after the other, once all of them are on its disk: a disk that is full changes nothing, and after a
    crash in between the same command completes it.

    Args:
        files: content by path, `/` between folders.
        folder: where they go.
        force: replace files that differ.

    Returns:
        How the files differed from what was there.

    Raises:
        SpecError: files differ and `force` is not given, or something else than a file is in the way; nothing is
            written.
        StorageError: the disk is full or the folder cannot be written.
    """
    found = compare(files, folder)
    if found.changed and not force:
        raise SpecError(
            f"{len(found.changed)} file(s) there differ: {', '.join(found.changed)}.",
            where=str(folder),
            fix="Nothing was written. Give --force to replace them, or another --out.",
        )
    if not found.is_same:
        try:
            _write({path: files[path] for path in (*found.added, *found.changed)}, folder)
        except OSError as error:
            raise StorageError(f"cannot be written ({error.strerror or error}).", where=str(folder)) from None
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (IsADirectoryError, NotADirectoryError, UnicodeDecodeError):
        raise SpecError("something else than a text file is in the way.", where=str(path)) from None
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror or error}).", where=str(path)) from None


def _write(files: dict[str, str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    is_new = not folder.exists() or not any(folder.iterdir())
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent if is_new else folder))
    try:
        aside.chmod(0o755)
        for path, text in files.items():
            _write_synced(aside / path, text)
        if is_new:
            aside.rename(folder)  # over the empty folder, if there is one
        else:
            for path in files:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (aside / path).rename(folder / path)
                sync_folder((folder / path).parent)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_synced(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())
