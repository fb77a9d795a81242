"""Finding and calling the functions that a person names, as `path/to/file.py:function` or `package.module:function`.

User code runs in a worker's child only. Whatever it raises becomes a `WorkloadError` that names the exception and the
deepest place in the user's own files.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tools.errors import InfertuneError, WorkloadError
from tools.workloads.imports import OWN_PACKAGES, digest_sources, find_clash, is_ours, local_sources

_TEXT_LIMIT = 400


def resolve(reference: str) -> Callable[..., Any]:
    """Import what a reference names.

    A file's folder is put first on `sys.path`, as for a script, so that it can import the files beside it. For
    `package.module` the working directory is, as for `python -m`.

    Raises:
        WorkloadError: the file or module is missing, raises while imported, has no such function, or imports a
            module of its own that is called like one of infertune's packages.
    """
    location, _, name = reference.rpartition(":")
    is_file = location.endswith(".py")
    module = _import_file(Path(location), reference) if is_file else _import_module(location, reference)
    found = getattr(module, name, None)
    if found is None:
        raise WorkloadError(f"has no function `{name}`.", where=location, fix=_suggestion(name, module))
    if not callable(found):
        raise WorkloadError(f"`{name}` is not a function (it is of type {type(found).__name__}).", where=location)
    resolved: Callable[..., Any] = found
    return resolved


def call(reference: str, *arguments: Any, **keywords: Any) -> Any:
    """Resolve a reference and call it.

    Raises:
        WorkloadError: it cannot be resolved, or raised.
    """
    function = resolve(reference)
    with user_code(reference, f"calling `{reference.rpartition(':')[2]}`", function):
        return function(*arguments, **keywords)


@contextlib.contextmanager
def user_code(reference: str, doing: str, function: Callable[..., Any] | None = None) -> Iterator[None]:
    """Turn whatever user code raises in the block into a `WorkloadError`.

    Args:
        reference: names the code, in the message.
        doing: what was attempted, to go before `raised`.
        function: the place to name when no frame of the traceback is the user's (a wrong number of arguments).
    """
    try:
        yield
    except (InfertuneError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise _described(error, reference, doing, function) from error


def source_digest(reference: str) -> str:
    """Return a digest of a function's file and of the user's files that it imports: it changes when the code does.

    Raises:
        WorkloadError: there is no such file or module.
    """
    location = reference.rpartition(":")[0]
    if location.endswith(".py"):
        entry = Path(location)
        if not entry.is_file():
            raise _no_file(location)
        root = entry.parent
    else:
        file = getattr(_import_module(location, reference), "__file__", None)
        if file is None:  # built in: the version of Python stands for it
            return hashlib.sha256(f"{location} {sys.version}".encode()).hexdigest()
        entry = Path(file)
        root = _root_of(location, entry)
        if _is_library(entry):
            return digest_sources([entry], root)
    return digest_sources(local_sources(entry, root), root)


def _import_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise _no_file(str(path))
    loaded = sys.modules.get(_module_name(path)) or sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    _refuse_clash(path, path.parent)
    _put_first(path.parent)
    name = path.stem if _finds(path) else _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with user_code(reference, "importing it"):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _import_module(name: str, reference: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    _put_first(Path.cwd())
    top = name.partition(".")[0]
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec(top)
        if found is not None and found.origin is not None and not _is_library(Path(found.origin)):
            origin = Path(found.origin)
            root = origin.parent.parent if origin.name == "__init__.py" else origin.parent
            place = root.joinpath(*name.split("."))
            entries = [origin, place.with_suffix(".py"), place / "__init__.py"]
            for entry in filter(Path.is_file, entries):
                _refuse_clash(entry, root)
    with user_code(reference, "importing it"):
        return importlib.import_module(name)
    raise AssertionError  # `user_code` never swallows what it sees


def _put_first(folder: Path) -> None:
    with contextlib.suppress(ValueError):
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _finds(path: Path) -> bool:
    """Whether `import <stem>` would find this very file, so that it may have its plain name."""
    if path.stem in sys.modules or not path.stem.isidentifier():
        return False
    found = importlib.util.find_spec(path.stem)
    return found is not None and found.origin == str(path)


def _module_name(path: Path) -> str:
    """A name for a file whose plain name is taken."""
    return f"infertune_user_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"


def _refuse_clash(entry: Path, root: Path) -> None:
    clash = find_clash(entry, root)
    if clash is not None:
        raise WorkloadError(
            f"imports `{clash.name}`, meaning {clash.sibling}, but `{clash.name}` is infertune's own package and "
            "would be imported instead.",
            where=f"{clash.file}:{clash.line}",
            fix=_rename(clash.name),
        )


def _rename(name: str) -> str:
    return f"Rename your `{name}`, or put it in a package of your own (`from mypackage.{name} import ...`)."


def _described(error: BaseException, reference: str, doing: str, function: Callable[..., Any] | None) -> WorkloadError:
    own = _own_package(error)
    if own is not None and not is_ours(Path(reference.rpartition(":")[0])):
        return WorkloadError(
            f"{doing} failed: {_one_line(error)}; `{own}` is infertune's own package, so a module of yours with "
            f"that name cannot be imported ({_place(error, function)}).",
            where=reference,
            fix=_rename(own),
        )
    fix = None
    if isinstance(error, ModuleNotFoundError) and error.name:
        fix = f"Install what provides `{error.name.partition('.')[0]}` here, or put the module beside the file."
    return WorkloadError(
        f"{doing} raised {type(error).__name__}: {_one_line(error)} ({_place(error, function)}).",
        where=reference,
        fix=fix,
    )


def _own_package(error: BaseException) -> str | None:
    """The package of ours that a failed import, or a missing attribute of a module, was about."""
    name = None
    if isinstance(error, ImportError):
        name = error.name
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    top = (name or "").partition(".")[0]
    return top if top in OWN_PACKAGES else None


def _place(error: BaseException, function: Callable[..., Any] | None) -> str:
    """`file:line` of the deepest frame that is neither Python's, nor a library's, nor ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(frame.filename)]
    if own:
        return f"{own[-1].filename}:{own[-1].lineno}"
    written = getattr(function, "__code__", None)
    if written is not None:
        return f"{written.co_filename}:{written.co_firstlineno}"
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "no place known"


def _is_users(file: str) -> bool:
    path = Path(file)
    if path.resolve().is_relative_to(Path(__file__).parent / "bundled"):
        return True
    return path.is_file() and not _is_library(path) and not is_ours(path)


def _is_library(path: Path) -> bool:
    folders = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.is_relative_to(folder) for folder in folders) or "site-packages" in path.parts


def _root_of(module: str, file: Path) -> Path:
    """The folder from which `module` was imported."""
    levels = module.count(".") + (1 if file.name == "__init__.py" else 0)
    return file.parents[levels]


def _no_file(location: str) -> WorkloadError:
    path = Path(location)
    beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, beside, n=1)
    return WorkloadError(
        "no such file.", where=location, fix=f"Did you mean `{close[0]}`?" if close else "Check the path in the spec."
    )


def _suggestion(name: str, module: ModuleType) -> str:
    public = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
    close = difflib.get_close_matches(name, public, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"It has: {', '.join(sorted(public)[:12])}." if public else "It defines no functions."


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + "..."
