"""Reading and patching one HorizontalPodAutoscaler."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tools.cluster.api_errors import ApiError
from tools.cluster.hpa_object import FIELD_MANAGER, HpaObject, Manifest, patch_body, require_ours
from tools.cluster.transport import Connection
from tools.contracts.scaling import HpaRef

__all__ = ["FIELD_MANAGER", "ApiError", "HpaClient", "HpaObject", "patch_body"]

MERGE_PATCH = "application/merge-patch+json"
"""RFC 7386. Kubernetes' strategic merge would merge lists of metrics by rules of its own."""


class HpaClient:
    """One HPA in one cluster, seen by one identity. Answers stay plain JSON: nothing that the server says is lost.

    A context manager, which closes the connection.
    """

    def __init__(self, connection: Connection, *, namespace: str, name: str) -> None:
        """Bind a connection to one object; nothing is sent.

        Args:
            connection: to the API server, as one identity.
            namespace: of the HPA.
            name: of the HPA.
        """
        from kubernetes.client import AutoscalingV2Api

        self.connection = connection
        self.namespace = namespace
        self.name = name
        self._hpas = AutoscalingV2Api(connection.api)

    def __repr__(self) -> str:
        """Name the object; never the credentials."""
        return f"HpaClient({self.namespace}/{self.name}, {self.connection!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def read(self) -> HpaObject:
        """Return the object as it is now.

        Raises:
            ApiError: it could not be read, after a few attempts where that can help.
        """
        return self._object(self.connection.ask, self._hpas.read_namespaced_horizontal_pod_autoscaler)

    def dry_run(self, patch: Manifest) -> HpaObject:
        """Return what the object would be, by the server's own defaulting and validation. Nothing is stored.

        Args:
            patch: from `patch_body`.

        Raises:
            FenceError: the patch names anything else than `patch_body` would.
            ApiError: the server refuses it, or could not be asked.
        """
        return self._patched(self.connection.ask, patch, dry_run="All")

    def patch(self, patch: Manifest) -> HpaObject:
        """Change the object and return it as it was stored. Sent once, whatever happens.

        Args:
            patch: from `patch_body`.

        Raises:
            FenceError: the patch names anything else than `patch_body` would.
            ApiError: the server refuses it, or the answer is lost; see `ApiError.maybe_stored`.
        """
        return self._patched(self.connection.change, patch)

    def ref(self, obj: HpaObject) -> HpaRef:
        """Return the name of this object at this moment, for a plan."""
        return HpaRef(
            server=self.connection.server,
            context=self.connection.context,
            namespace=obj.namespace,
            name=obj.name,
            uid=obj.uid,
            resource_version=obj.resource_version,
        )

    def _patched(self, send: Callable[..., Manifest], patch: Manifest, **arguments: Any) -> HpaObject:
        require_ours(patch)
        return self._object(
            send,
            self._hpas.patch_namespaced_horizontal_pod_autoscaler,
            body=patch,
            field_manager=FIELD_MANAGER,
            field_validation="Strict",
            _content_type=MERGE_PATCH,
            **arguments,
        )

    def _object(self, send: Callable[..., Manifest], method: Callable[..., Any], **arguments: Any) -> HpaObject:
        where = f"HPA {self.namespace}/{self.name}"
        manifest = send(method, where=where, name=self.name, namespace=self.namespace, **arguments)
        writing = "body" in arguments and "dry_run" not in arguments
        try:
            obj = HpaObject.parse(manifest)
        except (ValueError, TypeError, AttributeError) as error:  # of any other shape than the API's
            what = f"the answer is not what an API server gives: {error}."
            raise ApiError("not_json", what, where=where, writing=writing) from None
        if (obj.namespace, obj.name) != (self.namespace, self.name):
            raise ApiError("not_json", "the answer is about another object.", where=where, writing=writing)
        return obj
