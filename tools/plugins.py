"""What other distributions add to infertune: who they are, whether they work, and what they propose to try.

A plugin is a transform (`tools.transforms.Transform`) or a runtime (`tools.runtimes.Runtime`), found as
`tools.registry` says. To have it tried, it may have one more method that returns whole recipes:

    transform.propose(workload: WorkloadInfo, hardware: Hardware) -> Sequence[Recipe]
    runtime.recipes(workload: WorkloadInfo, hardware: Hardware) -> Sequence[Recipe]

It must not change anything, and must return the same for the same arguments: a session is resumed by asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tools.contracts import Availability, Hardware, Recipe, WorkloadInfo
from tools.errors import InfertuneError, UnavailableError
from tools.registry import Plugin, Registry
from tools.runtimes import RUNTIMES, get_runtime
from tools.transforms import TRANSFORMS, check_order, get_transform

_REGISTRIES: tuple[tuple[Registry[Any], str], ...] = ((TRANSFORMS, "propose"), (RUNTIMES, "recipes"))


def versions() -> dict[str, str]:
    """Return the version of each distribution that adds something: evidence rests on it like on any library."""
    return {plugin.distribution: plugin.version for _, _, plugin in sorted(_plugins(), key=lambda p: p[2].distribution)}


def check() -> None:
    """See that no two distributions add a part of the same name. Imports none of them.

    Raises:
        UnavailableError: they do; names both.
    """
    for registry, _ in _REGISTRIES:
        for clash in registry.clashes().values():
            raise UnavailableError(clash)


def examine() -> tuple[Availability, ...]:
    """Import every plugin and say whether it can be used, for `infertune doctor`."""
    found = []
    for registry, _, plugin in _plugins():
        name = f"{registry.kind} {plugin.name}"
        reason = registry.clashes().get(plugin.name)
        if reason is None:
            try:
                registry.get(plugin.name)
            except InfertuneError as error:
                reason = str(error)
        enable = None if reason is None else f"recipes with the {name}"
        found.append(
            Availability(name=name, available=reason is None, version=plugin.provider, reason=reason, enable=enable)
        )
    return tuple(found)


def proposals(
    workload: WorkloadInfo, hardware: Hardware, *, note: Callable[[str], None] = lambda _: None
) -> tuple[Recipe, ...]:
    """Ask every plugin what it would try.

    Args:
        workload: what is tuned.
        hardware: this machine.
        note: told, in a sentence, what was left out, and why: a plugin that fails, a recipe that cannot be run.

    Returns:
        Recipes that can be begun, each once, in the order of the plugins' names.
    """
    found: dict[str, Recipe] = {}
    for registry, method, plugin in _plugins():
        if plugin.name in registry.clashes():
            continue
        who = f"{registry.kind} {plugin.name} of {plugin.provider}"
        try:
            propose = getattr(registry.get(plugin.name), method, None)
            wanted = () if propose is None else tuple(propose(workload, hardware))
        except Exception as error:  # noqa: BLE001  a plugin may raise anything; the session goes on without it
            text = str(error) if isinstance(error, InfertuneError) else f"{type(error).__name__}: {error}"
            note(f"The {who} proposes nothing: {text}")
            continue
        for recipe in wanted:
            if (why_not := _refusal(recipe, workload)) is None:
                found[recipe.digest] = recipe
            else:
                note(f"What the {who} proposes is left out: {why_not}")
    return tuple(found.values())


def _plugins() -> Iterator[tuple[Registry[Any], str, Plugin]]:
    for registry, method in _REGISTRIES:
        for plugin in registry.plugins():
            yield registry, method, plugin


def _refusal(recipe: object, workload: WorkloadInfo) -> str | None:
    """Return why a recipe cannot even be begun; None when it can."""
    if not isinstance(recipe, Recipe):
        return f"{recipe!r} is no Recipe."
    try:
        made = check_order(workload.source.format, recipe.steps)
        if made not in get_runtime(recipe.runtime).formats:
            return f"{recipe.runtime} cannot load {made.value}."
        untaught = [s.transform for s in recipe.steps if get_transform(s.transform).needs_training]
    except InfertuneError as error:
        return str(error)
    if untaught and workload.training is None:
        return f"{untaught[0]} needs training data, and the workload has none."
    return None
