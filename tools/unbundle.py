"""Reading a bundle into a home directory: everything in it is checked before anything is written.

Written are the raw files first, then the rows, in one transaction, then the session's folder, made aside and renamed.
A reader who is killed in between leaves no session that lacks evidence; what he leaves is used by the next import, or
deleted by `infertune evidence gc`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tools.artifacts import digest_file, sync_folder, write_file
from tools.bundle import (
    FINDINGS,
    FORMAT,
    MANIFEST,
    RAW,
    TIDYING,
    BundleError,
    Manifest,
    is_of_session,
    is_plain,
    record_of,
)
from tools.contracts import Evidence
from tools.errors import StorageError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.lock import held
from tools.record import JOURNAL, LOCK, RESULT, SessionRecord
from tools.result import SessionResult

IMPORTING = ".importing-"
"""Beginning of the name of a session's folder that is being made."""
_MANIFEST_LIMIT = 64 * 10**6
_SESSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,127}")
_ENCRYPTED = 0x1
_CHUNK = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
"""What reading a zip file that was damaged raises."""
_SENDER = "Ask for the file again: it was damaged on its way, or changed by hand."


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    session: str
    folder: Path
    evidence: int
    raw: int
    """How many raw files came with it."""
    is_new: bool
    """Whether the session was not there before."""


def import_bundle(path: Path, home: Path, *, limit_mb: float) -> Imported:
    """Bring an exported session into a home directory. Doing it again changes nothing, and repairs what was lost.

    Args:
        path: the bundle.
        home: the home directory; made if absent.
        limit_mb: refuse a bundle that takes more, unpacked.

    Raises:
        BundleError: it is no bundle, or anything in it is not as it should be, or the home directory has another
            session or raw file of the same name. Nothing is written then.
        StorageError: the disk is full or the home directory cannot be written.
    """
    with _opened(path) as archive:
        checks = _Checks(archive, path)
        manifest = checks.members(limit_mb)
        bodies = checks.content(manifest)
        raw = [name for name in manifest.members if name.startswith(f"{RAW}/")]
        folder = home / "sessions" / manifest.session
        sessions = folder.parent / LOCK
        with held(home / LOCK, busy=TIDYING, shared=True), held(sessions, busy="another import is running."):
            is_new = not _is_there(folder, archive.read(JOURNAL))
            lacking = [name for name in raw if not _has_raw(home / name, manifest.members[name].sha256)]
            for name in lacking:
                write_file(home / name, archive.read(name))
            EvidenceStore(home / EVIDENCE).put_all(bodies)
            if is_new:
                _write_session(folder, {n: archive.read(n) for n in manifest.members if is_of_session(n)})
    return Imported(session=manifest.session, folder=folder, evidence=len(bodies), raw=len(raw), is_new=is_new)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise BundleError(f"cannot be read ({error.strerror or error}).", where=str(path)) from None
    except _DAMAGE as error:
        raise BundleError(f"is no bundle, or is damaged ({error}).", where=str(path), fix=_SENDER) from None
    try:
        with archive:
            yield archive
    except _DAMAGE as error:
        raise BundleError(f"is damaged ({error}).", where=str(path), fix=_SENDER) from None


@dataclass(frozen=True)
class _Checks:
    """What must hold before anything of a bundle is believed. Each raises `BundleError`."""

    archive: zipfile.ZipFile
    path: Path

    def members(self, limit_mb: float) -> Manifest:
        """Check that the members are the files that the manifest names, to the byte, and return it."""
        infos = self.archive.infolist()
        names = [unicodedata.normalize("NFC", info.filename).casefold() for info in infos]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._refusal(f"{twice!r} is in it twice.")
        for info in infos:
            self._plain(info)
        manifest = self._manifest()
        sizes = {info.filename: info.file_size for info in infos if info.filename != MANIFEST}
        if sizes.keys() != manifest.members.keys():
            odd = min(sizes.keys() ^ manifest.members.keys())
            raise self._refusal(f"{odd!r} is named in the manifest or is in the file, but not both.")
        total_mb = sum(sizes.values()) / 1e6
        if total_mb > limit_mb:
            what = f"takes {total_mb:,.0f} MB, and {limit_mb:,.0f} MB are allowed."
            raise self._refusal(what, "Allow more with --max-mb.")
        for name, member in manifest.members.items():
            if sizes[name] != member.size or self._digest(name, member.size) != member.sha256:
                raise self._refusal(f"{name!r} is not what the manifest says.")
        return manifest

    def content(self, manifest: Manifest) -> list[str]:
        """Check that journal, result, evidence and raw files belong together, and return the findings."""
        for name in (JOURNAL, FINDINGS):
            if name not in manifest.members:
                raise self._refusal(f"lacks {name}.")
        record = self._record(manifest)
        if RESULT in manifest.members:
            self._result(manifest)
        *bodies, rest = self.archive.read(FINDINGS).decode(errors="replace").split("\n")
        try:
            evidence = {e.id: e for e in map(Evidence.from_body, bodies)}
        except ValidationError:
            raise self._refusal(f"{FINDINGS} holds something that is no finding of this version.") from None
        if set(evidence) != set(record.evidence) or len(bodies) > len(evidence) or rest:
            raise self._refusal("the evidence in it is not that which its journal names.")
        named = {f"{RAW}/{e.raw}" for e in evidence.values() if e.raw is not None}
        carried = {name for name in manifest.members if name.startswith(f"{RAW}/")}
        if not carried <= named or not all(map(_is_known, named)):
            raise self._refusal("the raw files in it are not those that its evidence names.")
        return bodies

    def _plain(self, info: zipfile.ZipInfo) -> None:
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise self._refusal(f"{info.filename!r} is no plain file.")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._refusal(f"{info.filename!r} is packed in a way that bundles are not.")
        if not _is_known(info.orig_filename):
            raise self._refusal(f"{info.filename!r} is nothing that belongs into a bundle.")

    def _manifest(self) -> Manifest:
        if MANIFEST not in self.archive.namelist() or self.archive.getinfo(MANIFEST).file_size > _MANIFEST_LIMIT:
            raise self._refusal("is no bundle: it has no manifest.", "Make one: infertune evidence export SESSION")
        try:
            told = json.loads(self.archive.read(MANIFEST))
            if isinstance(told, dict) and told.get("format") != FORMAT:
                what = f"has format {told.get('format')!r}; this version of infertune reads format {FORMAT}."
                raise self._refusal(what, "Use the version of infertune that wrote it.")
            manifest = Manifest.model_validate(told)
        except (ValueError, RecursionError):  # what JSON and pydantic raise
            raise self._refusal(f"{MANIFEST} cannot be understood.") from None
        if not _SESSION.fullmatch(manifest.session):
            raise self._refusal(f"{manifest.session!r} is no name of a session.")
        return manifest

    def _digest(self, name: str, size: int) -> str | None:
        """Return the SHA-256 of a member, or None once it turns out longer than it may be."""
        total = hashlib.sha256()
        with self.archive.open(name) as stream:
            while chunk := stream.read(_CHUNK):
                size -= len(chunk)
                if size < 0:
                    return None
                total.update(chunk)
        return total.hexdigest()

    def _record(self, manifest: Manifest) -> SessionRecord:
        try:
            record = record_of(self.archive.read(JOURNAL))
        except StorageError as error:
            raise self._refusal(f"its journal cannot be used: it {error.what}", error.fix or _SENDER) from None
        if record.session != manifest.session:
            raise self._refusal(f"is said to hold session {manifest.session}, and holds {record.session!r}.")
        trace = _trace(record)
        if trace is not None and trace not in manifest.members:
            raise self._refusal(f"the traffic {trace!r} is not in it.")
        return record

    def _result(self, manifest: Manifest) -> None:
        try:
            result = SessionResult.model_validate_json(self.archive.read(RESULT))
        except ValidationError:
            raise self._refusal(f"{RESULT} is no result of this version of infertune.") from None
        if result.session != manifest.session:
            raise self._refusal(f"{RESULT} is that of another session.")

    def _refusal(self, what: str, fix: str = _SENDER) -> BundleError:
        return BundleError(what, where=str(self.path), fix=fix)


def _is_known(name: str) -> bool:
    """Whether a bundle has members of this name."""
    folder, _, file = name.rpartition("/")
    is_raw = folder == RAW and is_plain(file) and not file.startswith(".") and file.endswith(".npz")
    return name in (MANIFEST, FINDINGS) or is_raw or is_of_session(name)


def _trace(record: SessionRecord) -> str | None:
    """Return the name in the bundle of the traffic that the session was sized for, or whatever stands in its place."""
    traffic = None if record.loaded is None else record.loaded.spec.traffic
    if traffic is None or traffic.trace is None:
        return None
    trace = Path(traffic.trace)
    return trace.relative_to(record.folder).as_posix() if trace.is_relative_to(record.folder) else traffic.trace


def _is_there(folder: Path, journal: bytes) -> bool:
    """Whether the home directory has this session, as far as the bundle has it or farther.

    Raises:
        BundleError: it has another one of this name.
    """
    if not folder.exists():
        return False
    try:
        here = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        here = b""
    if here.startswith(journal):  # its own home recorded more since, in MLflow for one
        return True
    what = "an earlier state of it" if here and journal.startswith(here) else "another session of the same name"
    raise BundleError(
        f"the home directory has {what}.",
        where=str(folder),
        fix="Move that folder away, or import into another home directory (--home).",
    )


def _has_raw(file: Path, sha256: str) -> bool:
    """Whether a raw file is there.

    Raises:
        BundleError: another one of this name is.
    """
    if not file.exists():
        return False
    if digest_file(file) == sha256:
        return True
    raise BundleError(
        "the home directory has another raw file of this name, or this one was damaged.",
        where=str(file),
        fix="Move it away and import again.",
    )


def _write_session(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a session's folder aside, and rename it when all of it is on disk."""
    sessions = folder.parent
    aside: Path | None = None
    try:
        aside = Path(tempfile.mkdtemp(prefix=f"{IMPORTING}{folder.name}-", dir=sessions))
        aside.chmod(0o755)
        for name, content in files.items():
            write_file(aside / name, content)
        aside.rename(folder)
        sync_folder(sessions)
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror or error}).",
            where=str(folder),
            fix="Free some space, or point INFERTUNE_HOME to a folder that you can write.",
        ) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
