"""Trying a patch, and sending it so that it is stored once, whatever happens to the answer."""

from __future__ import annotations

from collections.abc import Callable

from tools.cluster.api_errors import ApiError
from tools.cluster.client import HpaClient, patch_body
from tools.cluster.hpa_object import HpaObject
from tools.contracts import HpaSpec
from tools.errors import ClusterError

ATTEMPTS = 4
"""One, and three more. A live HPA's status is written every 15 s, which makes a resourceVersion stale, so that a
conflict is nothing unusual; four in a row mean that somebody else writes all the time."""
WAIT_S = 1.0
"""Before another attempt, unless the server asks for more."""
_WAIT_CAP_S = 10.0
LANDS_WITHIN_S = 60.0
"""A patch that an API server has received is stored within this, or never (kube-apiserver, `--request-timeout`).

What is left: a patch that something on the way holds back for longer than this, such as a proxy that queues it or a
network that is cut and mended, and a server that was told to take longer. Such a patch is still stored if nothing at
all was written to the object meanwhile, not even its status: else its resourceVersion is stale, and it is refused.
"""
_LOOK_S = 5.0


class NotStoredError(ClusterError):
    """The patch was not stored when the object was read last, and is not sent again."""

    def __init__(self, what: str, *, maybe_stored: bool) -> None:
        """Compose the message.

        Args:
            what: what happened, in sentences.
            maybe_stored: whether a patch of ours may still be on its way; see `await_stragglers`.
        """
        self.maybe_stored = maybe_stored
        super().__init__(what)


class OvertakenError(ClusterError):
    """The object is not what the patch was made for any more, or may not be changed any more."""

    def __init__(self, what: str, *, obj: HpaObject | None, maybe_stored: bool) -> None:
        """Compose the message.

        Args:
            what: what has changed, in sentences.
            obj: the object as it is now; None if it was deleted.
            maybe_stored: whether a patch of ours may have been stored before.
        """
        self.obj = obj
        self.maybe_stored = maybe_stored
        super().__init__(what)


def send(
    client: HpaClient,
    obj: HpaObject,
    wanted: HpaSpec,
    *,
    landed: Callable[[HpaObject], bool],
    objections: Callable[[HpaObject], tuple[str, ...]],
    sleep: Callable[[float], None],
) -> HpaObject:
    """Make the HPA's `OWNED_FIELDS` what is wanted, and return it as the server has it then.

    A patch whose answer is lost, or that comes too late, is never simply repeated. The object is read first: if the
    change is there, that was it; if it is as it was, the patch is made anew for the resourceVersion that was read, so
    that it and a copy of it that is still under way cannot both be stored.

    Args:
        client: the writer's.
        obj: the object as it was read last.
        wanted: all of `OWNED_FIELDS`.
        landed: tells whether an object is what came of this very patch.
        objections: what speaks against sending it for an object that was read again; nothing if it is unchanged.
        sleep: waits between attempts.

    Raises:
        NotStoredError: the server refused, or was always overtaken. The object was as it was.
        OvertakenError: the object is neither as it was nor as wanted, or may not be changed any more.
        ApiError: the object could not be read again: nobody knows whether the change was stored.
    """
    maybe_stored = False
    for _ in range(ATTEMPTS):
        try:
            return client.patch(patch_body(obj.owned, wanted, obj.resource_version))
        except ApiError as error:
            if not _is_open(error):
                raise NotStoredError(str(error), maybe_stored=maybe_stored) from None
            failure = error
            maybe_stored = maybe_stored or error.maybe_stored
        sleep(min(failure.retry_after_s or WAIT_S, _WAIT_CAP_S))
        obj = _read_again(client, maybe_stored=maybe_stored)
        if landed(obj):
            return obj
        _require_unchanged(obj, objections, maybe_stored=maybe_stored)
    raise NotStoredError(f"{ATTEMPTS} attempts failed, the last one so: {failure}", maybe_stored=maybe_stored)


def rehearse(
    client: HpaClient,
    obj: HpaObject,
    wanted: HpaSpec,
    *,
    objections: Callable[[HpaObject], tuple[str, ...]],
    sleep: Callable[[float], None],
) -> tuple[HpaObject, HpaObject]:
    """Have the server try the patch without storing it.

    Args:
        client: the writer's.
        obj: the object as it was read last.
        wanted: all of `OWNED_FIELDS`.
        objections: as for `send`.
        sleep: waits between attempts.

    Returns:
        The object as it was read last, and what the server would make of it.

    Raises:
        OvertakenError: the object has changed meanwhile, or is gone.
        ApiError: the server refuses the patch, or could not be asked.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return obj, client.dry_run(patch_body(obj.owned, wanted, obj.resource_version))
        except ApiError as error:
            if error.kind != "conflict" or attempt == ATTEMPTS:
                raise
        sleep(WAIT_S)
        obj = _read_again(client, maybe_stored=False)
        _require_unchanged(obj, objections, maybe_stored=False)
    raise AssertionError("the last attempt returns or raises")  # pragma: no cover


def await_stragglers(
    client: HpaClient, *, unchanged: Callable[[HpaObject], bool], sleep: Callable[[float], None]
) -> HpaObject:
    """Wait until no patch that was sent before can be stored any more, and return the object as it is then.

    Whoever sent it may be dead, or have given up waiting for the answer, while the patch is still on its way. It was
    made for a version of the object that was read before, so it is void once there is a newer one. That mostly takes
    seconds, since the controller writes the status; else it is waited for as long as a patch can take.

    Args:
        client: the writer's.
        unchanged: tells whether an object is as such a patch expects it; one that is not is never changed by it.
        sleep: waits between looks.

    Raises:
        OvertakenError: the object was deleted.
        ApiError: the object could not be read.
    """
    first = obj = _read_again(client, maybe_stored=True)
    for _ in range(round(LANDS_WITHIN_S / _LOOK_S)):
        if obj.resource_version != first.resource_version or not unchanged(obj):
            break
        sleep(_LOOK_S)
        obj = _read_again(client, maybe_stored=True)
    return obj


def _require_unchanged(
    obj: HpaObject, objections: Callable[[HpaObject], tuple[str, ...]], *, maybe_stored: bool
) -> None:
    reasons = objections(obj)
    if reasons:
        raise OvertakenError(" ".join(reasons), obj=obj, maybe_stored=maybe_stored)


def _is_open(error: ApiError) -> bool:
    """Return whether a patch that ended so may have been stored, or may be if it is sent again."""
    return error.maybe_stored or error.kind in {"conflict", "too_many", "unreachable"}


def _read_again(client: HpaClient, *, maybe_stored: bool) -> HpaObject:
    try:
        return client.read()
    except ApiError as error:
        if error.kind == "not_found":
            raise OvertakenError("It was deleted.", obj=None, maybe_stored=maybe_stored) from None
        raise
