"""Opening a cluster as exactly the identity that the spec names: never the kubeconfig's current context."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tools.cluster.api_errors import ApiError
from tools.cluster.client import HpaClient
from tools.cluster.text import shown
from tools.cluster.transport import READ_TIMEOUT_S, Connection
from tools.errors import ClusterError, FenceError
from tools.spec import ClusterSpec

IN_CLUSTER = "in-cluster"
"""In place of a context's name: the service account of the pod that this runs in."""


def open_reader(
    cluster: ClusterSpec, *, read_timeout_s: float = READ_TIMEOUT_S, sleep: Callable[[float], None] = time.sleep
) -> HpaClient:
    """Return the spec's HPA as its reader sees it. Nothing is sent yet.

    Args:
        cluster: which HPA, and who reads it.
        read_timeout_s: how long to wait for an answer.
        sleep: waits between attempts.

    Raises:
        ClusterError: the kubeconfig or the context cannot be used.
    """
    connection = connect(cluster.context, cluster.kubeconfig, read_timeout_s=read_timeout_s, sleep=sleep)
    return HpaClient(connection, namespace=cluster.namespace, name=cluster.hpa)


def open_writer(
    cluster: ClusterSpec, *, read_timeout_s: float = READ_TIMEOUT_S, sleep: Callable[[float], None] = time.sleep
) -> HpaClient:
    """Return the spec's HPA as its writer sees it. Nothing is sent yet.

    Args:
        cluster: which HPA, and who may change it.
        read_timeout_s: how long to wait for an answer.
        sleep: waits between attempts.

    Raises:
        FenceError: the spec names no writer, or the writer's context is of another cluster than the reader's.
        ClusterError: the kubeconfig or the context cannot be used.
    """
    if cluster.writer_context is None:
        raise FenceError(
            "names nobody who may change the HPA, so nothing is applied.",
            where="cluster.writer_context",
            fix="Name the context of an identity with get and patch on this one HPA.",
        )
    kubeconfig = cluster.writer_kubeconfig or cluster.kubeconfig
    connection = connect(cluster.writer_context, kubeconfig, read_timeout_s=read_timeout_s, sleep=sleep)
    with open_reader(cluster) as reader:
        read_from = reader.connection.server
    if connection.server != read_from:
        connection.close()
        raise FenceError(
            f"is of {shown(connection.server)}, but `cluster.context` of {shown(read_from)}: "
            "what is read in one cluster is not changed in another.",
            where="cluster.writer_context",
            fix="Give both contexts the same `server`.",
        )
    return HpaClient(connection, namespace=cluster.namespace, name=cluster.hpa)


def connect(
    context: str,
    kubeconfig: str | None,
    *,
    read_timeout_s: float = READ_TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Connection:
    """Open a context of a kubeconfig, or the pod's own service account. Nothing is sent yet.

    Args:
        context: its name, or `in-cluster`.
        kubeconfig: a file; None for $KUBECONFIG (which may name several), then ~/.kube/config.
        read_timeout_s: how long to wait for an answer.
        sleep: waits between attempts.

    Raises:
        ClusterError: the file or the context is not there or not usable, or the credentials would be sent in the clear.
    """
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    configuration.host = ""  # no default: an address is in the kubeconfig, or there is none
    if context == IN_CLUSTER:
        _load_service_account(configuration)
    else:
        _load_context(configuration, context, kubeconfig)
    _require_safe(configuration, context)
    _tidy_credentials(configuration, context)
    # Retries and redirects are ours to decide (see Connection).
    configuration.retries = False
    return Connection(ApiClient(configuration), context=context, read_timeout_s=read_timeout_s, sleep=sleep)


def _load_service_account(configuration: Any) -> None:
    from kubernetes.config import ConfigException, load_incluster_config

    try:
        load_incluster_config(configuration)
    except (ConfigException, OSError) as error:
        raise ClusterError(
            f"cannot be used: {shown(error)}",
            where=f"cluster context {IN_CLUSTER}",
            fix="It is for a pod with a service account; elsewhere name a context of your kubeconfig.",
        ) from None


def _load_context(configuration: Any, context: str, kubeconfig: str | None) -> None:
    from kubernetes.config import ConfigException, load_kube_config

    files = _files(kubeconfig)
    names = [name for file in files for name in _context_names(file)]
    place = os.pathsep.join(map(str, files))
    if context not in names:
        known = ", ".join(sorted({shown(name) for name in names})) or "none"
        raise ClusterError(
            f"has no context {shown(context)!r}.", where=place, fix=f"Name one of its contexts: {known}."
        )
    try:
        # Without `persist_config=False` it may write refreshed tokens into the person's file.
        load_kube_config(place, context=context, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, ValueError, TypeError, KeyError):
        # Its text holds the whole entry, tokens included, so it is not repeated.
        raise ClusterError(
            f"context {shown(context)!r} is incomplete, or names a cluster, a user or a file that is not there.",
            where=place,
            fix=f"See what is missing with `kubectl --context {shown(context)} get hpa`.",
        ) from None


def _files(kubeconfig: str | None) -> list[Path]:
    """Return the kubeconfigs that are there, as kubectl finds them.

    Raises:
        ClusterError: there is none.
    """
    text = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    named = [text] if kubeconfig else text.split(os.pathsep)
    files = [path for path in (Path(part).expanduser() for part in named if part) if path.is_file()]
    if not files:
        raise ClusterError(
            "no such kubeconfig.", where=shown(text), fix="Set `cluster.kubeconfig`, or $KUBECONFIG, to a file."
        )
    return files


def _context_names(file: Path) -> list[str]:
    """Return the names of a kubeconfig's contexts.

    Raises:
        ClusterError: it cannot be read, or one name stands twice: then nobody can say which cluster is meant.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"cannot be read ({type(error).__name__}).", where=str(file)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # the error itself quotes the file, secrets included
        line = f" (line {mark.line + 1})" if mark else ""
        raise ClusterError(f"is not valid YAML{line}.", where=str(file)) from None
    contexts = content.get("contexts") if isinstance(content, dict) else None
    names = [str(c.get("name")) for c in contexts or () if isinstance(c, dict)] if isinstance(contexts, list) else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ClusterError(
            f"has more than one context {shown(twice[0])!r}, so it does not say which is meant.",
            where=str(file),
            fix="Rename one: `kubectl config rename-context`.",
        )
    return names


def _require_safe(configuration: Any, context: str) -> None:
    """See to it that credentials are shown to the API server only.

    kubectl does not send them without TLS either. Loopback needs none: it is the way to `kubectl proxy` and to a test
    server, and a proxy of the environment has no business there.
    """
    address = urlsplit(configuration.host)
    if not address.hostname:
        raise ClusterError(
            f"context {shown(context)!r} names a cluster without an address.",
            where="kubeconfig",
            fix="Add its `server`: `kubectl config set-cluster NAME --server=URL`.",
        )
    if _is_loopback(address.hostname):
        configuration.proxy = None
        return
    if address.scheme != "https" or not configuration.verify_ssl:
        how = "without TLS" if address.scheme != "https" else "without a check of its certificate"
        raise ClusterError(
            f"context {shown(context)!r} reaches its server {how}: anybody in between could take the credentials, or "
            "answer for it.",
            where=shown(configuration.host),
            fix="Use https and `certificate-authority-data` in the kubeconfig.",
        )


def _tidy_credentials(configuration: Any, context: str) -> None:
    """Drop the line end of a token file, as kubectl does, now and whenever the file is read again.

    HTTP's own error about it would show the token.
    """
    refresh = configuration.refresh_api_key_hook

    def tidied(current: Any) -> None:
        if refresh is not None:
            refresh(current)
        for name, value in current.api_key.items():
            current.api_key[name] = value.strip()
            if not (value.strip().isascii() and value.strip().isprintable()):
                what = "its token holds characters that no token has."
                raise ApiError("unauthorized", what, where=f"context {shown(context)}")

    tidied(configuration)
    configuration.refresh_api_key_hook = tidied


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
