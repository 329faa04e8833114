"""Files on disk: atomic writes, folders held by one process, and refusals of the system in one line."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slimfleet.compression.errors import BadInput, DiskError

LOCK = ".lock"
"""The file in a folder that `locked` holds. It stays behind, empty of meaning, when the process has ended."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def naming(path: Path, action: str = "write") -> Iterator[None]:
    """Raise DiskError, which names `path` and the reason, for every OSError inside."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(f"cannot {action} {path}: {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes, durable: bool = True, *, private: bool = False) -> None:
    """Write `data` to `path` as `written_atomically` does."""
    with written_atomically(path, durable, private=private) as file:
        file.write(data)


@contextlib.contextmanager
def written_atomically(path: Path, durable: bool = True, *, private: bool = False) -> Iterator[BinaryIO]:
    """Write to `path` so that a reader, or a kill at any moment, sees the old file or the new one.

    What the block writes goes to a temporary file beside `path`, which takes its name at the end; missing parent
    folders are made. A `private` file is its owner's alone, from its first moment. With `durable` the bytes have
    reached the disk on return, and a power cut leaves a whole file too. Raises DiskError where the disk refuses; then,
    and after any other exception of the block, the temporary file is gone and `path` is as it was.
    """
    # Not tempfile: its files are private to the owner, these get the permissions of any other new file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb", opener=_privately if private else None) as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    if durable:
        sync(path.parent)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_file(path: Path) -> bytes:
    """The content of a plain file. Raises OSError, also where `path` is a pipe or a device, which could block."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return path.read_bytes()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an existing folder for this process alone. The lock ends with the process, even where it is killed.

    Raises BadInput where another process holds it, and DiskError where no file can be made in it.
    """
    import fcntl  # not on Windows

    path = folder / LOCK
    with naming(path):
        # A link planted here must not lead the write below to another file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 100).decode(errors="replace").strip()
            who = holder if holder.isprintable() and holder else "another process"
            raise BadInput(
                f"{folder} is in use by {who}: wait until it has ended, or give another folder"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): do not start a second run in it", folder, error.strerror)
        with naming(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut, where the file system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
