"""A session in one file: its journal, result, report and inputs, and the evidence that it used.

Whoever has the file can replay, question and explain the session in another home directory. The model's and the data's
files are not in it: artifacts and items stay where they were.

A bundle is a zip file. `manifest.json` names every other member with its size and SHA-256; `evidence.jsonl` has one
stored finding per line, `raw/` their samples. The digests tell damage, not authorship: trust a bundle as far as you
trust who sent it.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from pydantic import Field

from tools.artifacts import digest_file, sync_folder
from tools.contracts import Contract
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.lock import held
from tools.record import JOURNAL, LOCK, SessionRecord, read_record

FORMAT = 1
"""Version of what a bundle holds: one of another version is refused."""
MANIFEST = "manifest.json"
FINDINGS = "evidence.jsonl"
RAW = "raw"
INPUTS = "inputs"
SUFFIX = ".infertune.zip"
TIDYING = "its evidence is being tidied up right now: try again in a minute."
_OF_A_SESSION = re.compile(r"journal\.jsonl|result\.json|report\.html|hpa\.yaml|[^/]+\.infertune\.(yaml|diff)")
_LONGEST_NAME = 255
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip file can name: the same content gives the same bytes."""


class BundleError(StorageError):
    """A bundle cannot be used, or cannot be made."""


class Member(Contract):
    """What the manifest says of one file."""

    size: int = Field(ge=0)
    """Bytes, unpacked."""
    sha256: str


class Manifest(Contract):
    """What a bundle holds."""

    format: int
    infertune: str
    """Version that wrote it."""
    session: str
    members: dict[str, Member]


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle."""

    session: str
    members: Mapping[str, bytes | Path]
    """Content, or the file that has it, by the name in the bundle."""
    evidence: int
    """How many findings there are."""
    missing_raw: tuple[str, ...]
    """Names of raw files that the evidence speaks of and the home directory lacks."""

    @property
    def raw(self) -> int:
        """How many raw files there are."""
        return sum(name.startswith(f"{RAW}/") for name in self.members)

    @property
    def size_mb(self) -> float:
        """Before it is packed."""
        return sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in self.members.values()) / 1e6


def is_plain(name: str) -> bool:
    """Whether this is the name of a file, shows as one on a terminal, and leads nowhere outside of its folder."""
    return (
        name not in ("", ".", "..")
        and not set(name) & set("/\\")
        and name.isprintable()
        and len(name.encode()) <= _LONGEST_NAME
    )


def is_of_session(name: str) -> bool:
    """Whether a member of this name belongs into the session's folder."""
    folder, _, file = name.rpartition("/")
    return is_plain(file) and (folder == INPUTS or (not folder and _OF_A_SESSION.fullmatch(file) is not None))


def record_of(journal: bytes) -> SessionRecord:
    """Fold the text of a journal.

    Raises:
        StorageError: it is damaged, or of another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / JOURNAL).write_bytes(journal)
        return read_record(Path(folder))


def collect(folder: Path, *, raw: bool = True) -> Contents:
    """Gather what a bundle of a session holds. A running session is taken as far as it came.

    Args:
        folder: `<home>/sessions/<id>`.
        raw: with the raw samples.

    Raises:
        BundleError: some of its evidence is missing from the store.
        StorageError: the journal or the store cannot be read.
    """
    read_record(folder)  # says what is wrong with a journal where it lies
    home = folder.parents[1]
    with held(home / LOCK, busy=TIDYING, shared=True):
        journal = (folder / JOURNAL).read_bytes()
        journal = journal[: journal.rfind(b"\n") + 1]  # what follows is being written, or was cut off
        record = record_of(journal)
        bodies, names = _evidence(record, home)
        members: dict[str, bytes | Path] = {JOURNAL: journal, FINDINGS: "".join(f"{b}\n" for b in bodies).encode()}
        members |= {name: file.read_bytes() for name, file in _session_files(folder)}
    files = {name: home / RAW / name for name in sorted(names)} if raw else {}
    members |= {f"{RAW}/{name}": file for name, file in files.items() if file.is_file()}
    return Contents(
        session=record.session,
        members=dict(sorted(members.items())),
        evidence=len(bodies),
        missing_raw=tuple(name for name, file in files.items() if not file.is_file()),
    )


def write(contents: Contents, path: Path, *, overwrite: bool = False) -> None:
    """Write a bundle: it is there whole or not at all, and has the same bytes for the same contents.

    Args:
        contents: what goes into it.
        path: the file.
        overwrite: replace a file that is there.

    Raises:
        BundleError: there is such a file already.
        StorageError: the disk is full or the folder cannot be written.
    """
    if path.exists() and not overwrite:
        raise BundleError("is there already.", where=str(path), fix="Use --force to replace it, or -o for another.")
    aside: Path | None = None
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        aside = Path(name)
        with os.fdopen(fd, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                _fill(archive, contents)
            stream.flush()
            os.fsync(stream.fileno())
        aside.chmod(0o644)
        aside.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror or error}).", where=str(path), fix="Choose another file with -o."
        ) from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


def _evidence(record: SessionRecord, home: Path) -> tuple[list[str], set[str]]:
    """Return the stored texts of a session's evidence in the order of its first use, and the names of its raw files.

    Raises:
        BundleError: some of it is missing or damaged.
    """
    store = EvidenceStore(home / EVIDENCE)
    intact = {e.id: e for e in store.get_all(record.evidence)}
    missing = [identity for identity in record.evidence if identity not in intact]
    if missing:
        raise BundleError(
            f"{len(missing)} of {len(record.evidence)} pieces of evidence of session {record.session} are missing or "
            f"damaged: {', '.join(missing)}.",
            where=str(home / EVIDENCE),
            fix="Import them from an earlier export, or repeat the session: what is missing is measured again.",
        )
    bodies = dict(store.bodies(record.evidence))
    return [bodies[identity] for identity in record.evidence], {e.raw for e in intact.values() if e.raw is not None}


def _session_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a session that go into its bundle, by their names in it; not the journal.

    Raises:
        BundleError: an input has a name that no bundle holds.
    """
    for file in sorted([*folder.iterdir(), *folder.glob(f"{INPUTS}/*")]):
        name = str(PurePosixPath(file.relative_to(folder)))
        if not file.is_file() or name == JOURNAL:
            continue
        if is_of_session(name):
            yield name, file
        elif file.parent != folder:
            raise BundleError("a bundle cannot hold a file of this name.", where=str(file), fix="Rename it.")


def _fill(archive: zipfile.ZipFile, contents: Contents) -> None:
    manifest = Manifest(
        format=FORMAT,
        infertune=version("infertune"),
        session=contents.session,
        members={name: _described(content) for name, content in contents.members.items()},
    )
    members = {MANIFEST: (manifest.model_dump_json(indent=1) + "\n").encode(), **contents.members}
    for name, content in members.items():
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system = 3  # Unix, whatever this is: the attributes below are Unix's
        info.external_attr = 0o100644 << 16
        info.compress_type = zipfile.ZIP_DEFLATED if isinstance(content, bytes) else zipfile.ZIP_STORED
        archive.writestr(info, content if isinstance(content, bytes) else content.read_bytes())


def _described(content: bytes | Path) -> Member:
    if isinstance(content, bytes):
        return Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return Member(size=content.stat().st_size, sha256=digest_file(content))
