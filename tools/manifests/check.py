"""Validating a tree of manifests against the Kubernetes API's own schemas, unknown fields forbidden."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.text import MESSAGE_LIMIT, shown
from tools.errors import SpecError, UnavailableError

OLDEST = "1.30"
"""The first version in which all that is used here is on by default (`preStop.sleep`)."""
_KUSTOMIZE = "kustomize.config.k8s.io/"
_KUSTOMIZATION = "kustomization.yaml"


@dataclass(frozen=True)
class Report:
    """What came of a check."""

    versions: tuple[str, ...]
    valid: int
    """Objects that every version accepts."""
    unknown: tuple[str, ...]
    """Kinds that Kubernetes itself does not have: nobody judged them."""
    problems: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the report for a person."""
        yield from self.problems
        yield f"{self.valid} objects are valid for Kubernetes {' and '.join(self.versions)}."
        if self.unknown:
            yield f"Not judged, since their schemas are not Kubernetes' own: {', '.join(self.unknown)}."


def check_tree(folder: Path) -> Report:
    """Validate all objects below a folder; patches are parts of objects and are left out.

    Raises:
        SpecError: there is no such folder, or no manifest in it.
        UnavailableError: kubernetes-validate is not installed.
    """
    try:
        kubernetes_validate = importlib.import_module("kubernetes_validate")  # it has no types
    except ImportError:
        raise UnavailableError(
            "kubernetes-validate is not installed.", fix="pip install kubernetes-validate, or infertune[dev]"
        ) from None
    versions = (OLDEST, kubernetes_validate.latest_version())
    files = sorted(folder.rglob("*.yaml"))
    if not files:
        raise SpecError("has no manifests.", where=str(folder), fix="`infertune manifests --out DIR` writes some.")
    parsed, problems = _parse(files, folder)
    patches, missing = _references(parsed)
    problems += [f"{path.relative_to(folder)}: does not exist, but a kustomization names it" for path in missing]
    valid, unknown = 0, set()
    for path, document in _objects(parsed):
        if path.resolve() in patches:
            continue
        try:
            for version in versions:
                kubernetes_validate.validate(document, version, strict=True)
            valid += 1
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(shown(document.get("kind")))
        except kubernetes_validate.ValidationError as error:
            field = ".".join(str(part) for part in error.path)
            what = shown(error.message, MESSAGE_LIMIT)
            problems.append(f"{path.relative_to(folder)}: {shown(document.get('kind'))} {field}: {what}")
    return Report(versions=versions, valid=valid, unknown=tuple(sorted(unknown)), problems=tuple(problems))


def _parse(files: list[Path], folder: Path) -> tuple[dict[Path, list[Any]], list[str]]:
    parsed, problems = {}, []
    for path in files:
        try:
            parsed[path] = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            problems.append(f"{path.relative_to(folder)}: cannot be read: {shown(error, MESSAGE_LIMIT)}")
    return parsed, problems


def _references(parsed: dict[Path, list[Any]]) -> tuple[set[Path], list[Path]]:
    """Return the files that kustomizations use as patches, and those that they name in vain."""
    patches: set[Path] = set()
    missing: list[Path] = []
    for path, documents in parsed.items():
        if path.name != _KUSTOMIZATION:
            continue
        for document in (d for d in documents if isinstance(d, dict)):
            used = [path.parent / p["path"] for p in document.get("patches") or [] if "path" in p]
            patches.update(p.resolve() for p in used)
            named = [path.parent / str(p) for key in ("resources", "components") for p in document.get(key) or []]
            missing += [p for p in (*used, *named) if not p.exists()]
    return patches, missing


def _objects(parsed: dict[Path, list[Any]]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path, documents in parsed.items():
        for document in documents:
            if isinstance(document, dict) and not str(document.get("apiVersion", "")).startswith(_KUSTOMIZE):
                yield path, document
