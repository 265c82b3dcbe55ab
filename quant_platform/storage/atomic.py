"""Files that appear whole or not at all. Every file that another process may read is published through here."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".tmp"


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it, rename it into place and fsync the folder.

    The temporary name never matches a glob for the final one. When the body raises, the temporary file goes and
    the old `path`, if there was one, stays.

    Raises:
        OSError: The folder cannot be written or the disk is full; the message names the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_SUFFIX}")
    try:
        yield temporary
        publish(temporary, path)
    except OSError as error:
        if error.filename or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say which file
    finally:
        temporary.unlink(missing_ok=True)


def publish(written: Path, path: Path) -> None:
    """Put a finished file in the place of `path`, durably: fsync, rename, fsync the folder. Same file system."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(path)
    fsync_folder(path.parent)


def sweep(path: Path) -> None:
    """Remove temporary files that a killed writer of `path` left behind; the caller holds the write lock."""
    if path.parent.is_dir():
        for file in path.parent.iterdir():
            if file.name.startswith(f"{path.name}.") and file.name.endswith(_SUFFIX):
                file.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
