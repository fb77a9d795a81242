"""Parts by name: infertune's own, and those that other distributions add.

A distribution adds a part by an entry point in the group of its kind; the entry point's name is the part's name:

    [project.entry-points."infertune.transforms"]
    half-weights = "infertune_half_weights:HalfWeights"

Names are listed without importing anything; a module is imported when its part is used.
See https://packaging.python.org/en/latest/specifications/entry-points/.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from typing_extensions import get_protocol_members

from tools.errors import InfertuneError, UnavailableError

Part = TypeVar("Part")


@dataclass(frozen=True)
class Plugin:
    """A part that another distribution adds."""

    name: str
    distribution: str
    version: str
    entry: importlib.metadata.EntryPoint

    @property
    def provider(self) -> str:
        """Who provides it: `acme-tools 1.2`."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Registry(Generic[Part]):
    """The parts of one kind.

    Args:
        kind: what a person calls them: `transform`.
        group: of the entry points that add more.
        built_in: infertune's own, `package.module:Class` by name.
        protocol: what each of them has to be.
        error: raised when there is none of a name, or it cannot be used.
    """

    kind: str
    group: str
    built_in: Mapping[str, str]
    protocol: type
    error: type[InfertuneError] = UnavailableError

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts that can be asked for: infertune's own first. Imports none of them."""
        clashing = self.clashes()
        return (*self.built_in, *(p.name for p in self.plugins() if p.name not in clashing))

    def plugins(self) -> tuple[Plugin, ...]:
        """Return what other distributions add, by name and then distribution."""
        return _discover(self.group, tuple(sys.path))

    def clashes(self) -> dict[str, str]:
        """Return a sentence about each name that two distributions want to have, by the name."""
        first: dict[str, str] = dict.fromkeys(self.built_in, "infertune itself")
        clashing: dict[str, str] = {}
        for plugin in self.plugins():
            if plugin.name in first:
                clashing[plugin.name] = (
                    f"the {self.kind} {plugin.name!r} is provided by {first[plugin.name]} and by {plugin.provider}: "
                    f"remove one of them, as in: pip uninstall {plugin.distribution}"
                )
            first.setdefault(plugin.name, plugin.provider)
        return clashing

    def get(self, name: str) -> Part:
        """Return a new instance of the part called `name`.

        Raises:
            InfertuneError: of this registry's kind; there is none of this name, or it cannot be used.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return cast("Part", getattr(importlib.import_module(module), attribute)())
        if name in (clashes := self.clashes()):
            raise self.error(clashes[name])
        for plugin in self.plugins():
            if plugin.name == name:
                return self._made_by(plugin)
        raise self.error(f"there is no {self.kind} {name!r}.", fix=f"Known: {', '.join(self.names())}.")

    def _made_by(self, plugin: Plugin) -> Part:
        """Import a plugin's class and make an instance of it, if it is what it says it is."""
        try:
            part: Any = plugin.entry.load()()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise self._unusable(plugin, f"cannot be loaded ({reason})") from error
        if missing := sorted(m for m in get_protocol_members(self.protocol) if not hasattr(part, m)):
            raise self._unusable(plugin, f"has no {', '.join(missing)}, which every {self.kind} must have")
        if part.name != plugin.name:
            raise self._unusable(plugin, f"calls itself {part.name!r}; its entry point must have the same name")
        return cast("Part", part)

    def _unusable(self, plugin: Plugin, why: str) -> InfertuneError:
        return self.error(
            f"the {self.kind} {plugin.name!r} of {plugin.provider} {why}.",
            fix=f"Mend it, or remove it: pip uninstall {plugin.distribution}",
        )


@functools.lru_cache(maxsize=8)
def _discover(group: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:  # noqa: ARG001  another path, another answer
    """Return a group's plugins as they are found below `sys.path`, which is `path`."""
    found = [
        Plugin(entry.name, entry.dist.name, entry.dist.version, entry)
        for entry in importlib.metadata.entry_points(group=group)
        if entry.dist is not None
    ]
    return tuple(sorted(found, key=lambda p: (p.name, p.distribution)))
