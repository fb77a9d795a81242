"""The secret that the store of plans seals its rows with: one file, made once, readable by its owner only."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from tools.artifacts import sync_folder
from tools.errors import StorageError

_BYTES = 32


def read_key(path: Path) -> bytes | None:
    """Return the secret, or None if there is none yet.

    Raises:
        StorageError: it cannot be read, is damaged, or others may read it and so could have forged an approval.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            key = stream.read(_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"cannot be read ({error.strerror or error}).",
            where=str(path),
            fix="Approvals cannot be checked without it.",
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise StorageError(
            f"can be used by others (mode {stat.S_IMODE(mode):04o}), who could have forged approvals.",
            where=str(path),
            fix=f"If nobody has: `chmod 600 {path.name}`. Otherwise move plans.db and this file away.",
        )
    if len(key) != _BYTES:
        raise StorageError(
            "is damaged.",
            where=str(path),
            fix="Restore it from a backup, or move it and plans.db away: plans are then made and approved anew.",
        )
    return key


def make_key(path: Path) -> bytes:
    """Make the secret, unless another process was faster, and return the one that counts.

    Raises:
        StorageError: it cannot be written or read.
    """
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600 from the start
        aside = Path(name)
        with os.fdopen(fd, "wb") as stream:
            stream.write(secrets.token_bytes(_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            # A link, other than a rename, never replaces: of several processes, one makes the key.
            os.link(aside, path)
        except FileExistsError:
            pass
        else:
            sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot be written ({error.strerror or error}).",
            where=str(path),
            fix="Free some space, or point INFERTUNE_HOME to a folder that you can write.",
        ) from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
    key = read_key(path)
    if key is None:
        raise StorageError("was removed while it was made.", where=str(path))
    return key
