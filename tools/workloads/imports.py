"""What a user's file imports from beside itself, found without running it.

Two things rest on that: the digest of a piece of user code covers the helpers it imports, and a helper that is
called like one of infertune's own packages is reported before Python silently picks the wrong one.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OWN_PACKAGES = ("agent", "nodes", "tools", "simulations")
_OWN_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Clash:
    """A user's file imports a module of the user's that is called like one of our packages."""

    name: str
    file: Path
    line: int
    sibling: Path


def is_ours(path: Path) -> bool:
    """Whether a file belongs to infertune, as the bundled workloads do."""
    return any(path.resolve().is_relative_to(_OWN_ROOT / package) for package in OWN_PACKAGES)


def local_sources(entry: Path, root: Path) -> list[Path]:
    """Return `entry`, the `__init__.py` of its packages, and every file below `root` that these import; sorted.

    What is imported through another file counts too.

    Args:
        entry: a Python file.
        root: the folder from which absolute imports of the user's own modules resolve.
    """
    found = {entry, *_packages(entry, root)}
    waiting = [*found]
    while waiting:
        for imported in _imports(waiting.pop()):
            for path in _files_of(imported, root):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
    return sorted(found)


def find_clash(entry: Path, root: Path) -> Clash | None:
    """Return the first import below `root` that means a user's module, but would get one of our packages."""
    if is_ours(entry):
        return None
    for file in local_sources(entry, root):
        for imported in _imports(file):
            name = imported.parts[0] if imported.parts else ""
            if imported.base is None and name in OWN_PACKAGES:
                sibling = _sibling(root, name)
                if sibling is not None and not is_ours(sibling):
                    return Clash(name=name, file=file, line=imported.line, sibling=sibling)
    return None


def digest_sources(files: list[Path], root: Path) -> str:
    """Return the SHA-256 over the names below `root` and the contents of some files."""
    total = hashlib.sha256()
    for file in files:
        name = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        total.update(str(name).encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class _Import:
    """One imported dotted name; `base` is the folder that a relative import starts from."""

    parts: tuple[str, ...]
    line: int
    base: Path | None


def _imports(file: Path) -> Iterator[_Import]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # importing it will say so, with the place
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Import(tuple(alias.name.split(".")), node.lineno, None)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else None
            module = tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:  # the last part may be a module or something inside one
                yield _Import((*module, alias.name), node.lineno, base)


def _packages(entry: Path, root: Path) -> Iterator[Path]:
    """Yield the `__init__.py` below the root that run before the entry is imported."""
    for folder in entry.parents:
        if folder == root or not folder.is_relative_to(root):
            return
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"


def _files_of(imported: _Import, root: Path) -> Iterator[Path]:
    """Yield the files that run for `import a.b.c`: those of a, a.b and a.b.c which exist below the root."""
    folder = imported.base or root
    if not folder.is_relative_to(root) or (imported.base is None and imported.parts[0] in OWN_PACKAGES):
        return
    for part in imported.parts:
        for path in (folder / f"{part}.py", folder / part / "__init__.py"):
            if path.is_file():
                yield path
        folder = folder / part


def _sibling(root: Path, name: str) -> Path | None:
    if (root / f"{name}.py").is_file():
        return root / f"{name}.py"
    folder = root / name
    return folder if folder.is_dir() and any(folder.glob("*.py")) else None
