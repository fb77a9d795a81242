"""Names, labels and image references that come from a spec or a command line: checked before they get into a manifest.

A manifest is applied with rights that the text of a spec does not have, so nothing is quoted, cut or mended here: what
Kubernetes would refuse is refused now, with the field that it came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tools.cluster.text import shown
from tools.errors import SpecError

MAX_NAME = 42
"""A CronJob's name has at most 52 characters, and `-infertune` takes 10 of them."""
MAX_NAMESPACE = 55
"""A namespace has at most 63 characters, and `-staging` takes 8 of them."""

_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_REPOSITORY = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+(([.]|_{1,2}|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_{1,2}|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """A container image: a repository, and what exactly of it."""

    repository: str
    tag: str | None
    digest: str | None


def check_name(name: str, where: str) -> str:
    """Return a name that a Deployment, its Service (RFC 1035 label) and all that is named after it can have.

    Raises:
        SpecError: it is none.
    """
    if len(name) > MAX_NAME or not _LABEL.fullmatch(name):
        raise SpecError(
            f"{shown(name)!r} cannot name a service: at most {MAX_NAME} lower-case letters, digits and dashes, "
            "beginning with a letter and not ending in a dash.",
            where=where,
            fix="Give one with --name.",
        )
    return name


def check_namespace(namespace: str, where: str) -> str:
    """Return the name of a namespace (RFC 1123 label), short enough for its staging twin.

    Raises:
        SpecError: it is none.
    """
    if len(namespace) > MAX_NAMESPACE or not _NAMESPACE.fullmatch(namespace):
        raise SpecError(
            f"{shown(namespace)!r} cannot name a namespace: at most {MAX_NAMESPACE} lower-case letters, digits and "
            "dashes, beginning and ending with a letter or a digit.",
            where=where,
            fix="Give one with --namespace.",
        )
    return namespace


def check_object_name(name: str, where: str) -> str:
    """Return the name of an object that is not a Service (RFC 1123 subdomain).

    Raises:
        SpecError: it is none.
    """
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise SpecError(f"{shown(name)!r} cannot name a Kubernetes object.", where=where, fix="Correct it there.")
    return name


def check_labels(labels: Any, where: str) -> dict[str, str]:
    """Return labels as Kubernetes has them: an optional prefix and a name, and a short value.

    Raises:
        SpecError: one of them is none, or they are no mapping.
    """
    if not isinstance(labels, dict):
        raise SpecError("`metadata.labels` must be a mapping.", where=where)
    for key, value in labels.items():
        prefix, slash, name = str(key).rpartition("/")
        is_key = bool(_QUALIFIED.fullmatch(name)) and (not slash or bool(_SUBDOMAIN.fullmatch(prefix)))
        if not is_key or not isinstance(value, str) or not (value == "" or _QUALIFIED.fullmatch(value)):
            raise SpecError(
                f"{shown(key)!r}: {shown(value)!r} is no label.",
                where=where,
                fix="See https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/.",
            )
    return dict(labels)


def parse_image(reference: str, where: str) -> Image:
    """Read `registry/path:tag`, `registry/path@sha256:...` or both.

    Raises:
        SpecError: it is none, or names neither tag nor digest: what `latest` is today is not what was measured.
    """
    rest, at, digest = reference.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # a port's colon
        repository, tag = rest, ""
    parts = (_REPOSITORY.fullmatch(repository), not tag or _TAG.fullmatch(tag), not at or _DIGEST.fullmatch(digest))
    if not all(parts) or (colon and not repository):
        raise SpecError(
            f"{shown(reference)!r} is no image.",
            where=where,
            fix="Write registry/path:tag, or registry/path@sha256:...",
        )
    if not (tag or digest):
        raise SpecError(
            f"{shown(reference)!r} names neither a tag nor a digest, so it could be anything tomorrow.",
            where=where,
            fix="Write registry/path:tag, or registry/path@sha256:...",
        )
    return Image(repository=repository, tag=tag or None, digest=digest or None)
