"""One remote file to one local file: streamed, resumable, retried. What it means is its feed's business."""

import functools
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx
import structlog
import tenacity

from quant_platform.feeds.retry_after import retry_after_s

Progress = Callable[[int, int | None], None]
"""Called with the bytes held so far and the total, or None where the source does not say."""

_T = TypeVar("_T")
_CHUNK_BYTES = 1 << 20
_LOG = structlog.get_logger()


class DownloadError(Exception):
    """A file could not be had; the message says which, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How patiently a source that fails for now is asked again.

    Attributes:
        attempts: Requests in all, the first included.
        first_wait_s: Wait before the second attempt; it doubles from then on, with as much jitter.
        longest_wait_s: Upper bound of that wait.
        longest_retry_after_s: A server that asks for a longer pause than this is left alone for this run.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 900.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be >= 1, was {self.attempts}")


class _TryAgainError(Exception):
    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def read_text(url: str, *, retry: Retry) -> str | None:
    """Return the text of a small file, or None where the source does not have it.

    Raises:
        DownloadError: The source cannot be reached, or refuses.
    """
    if url.startswith("file:"):
        path = local_path(url)
        try:
            return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        except OSError as error:
            raise DownloadError(f"Could not read {path}: {error.strerror}. Make it readable.") from error

    def ask(client: httpx.Client) -> str | None:
        response = client.get(url)
        return None if _is_absent(response) else response.text

    return _with_retries(ask, url, retry)


def download(url: str, part: Path, *, retry: Retry, on_progress: Progress | None = None) -> bool:
    """Bring `url` into `part`, going on where an earlier attempt or process stopped.

    A partial file is resumed only where the source named its version (ETag or Last-Modified) and still has it.

    Returns:
        False where the source does not have the file; `part` is then absent.

    Raises:
        DownloadError: The source cannot be reached, or refuses; or `part` cannot be written.
    """
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if url.startswith("file:"):
            return _copied(local_path(url), part, on_progress)
        return _with_retries(lambda client: _streamed(client, url, part, on_progress), url, retry)
    except OSError as error:
        raise DownloadError(
            f"Could not copy or store {error.filename or part}: {error.strerror}. "
            "Free disk space or set the permissions right, then run again."
        ) from error


def forget(part: Path) -> None:
    """Remove a partial download and what is known about it."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def local_path(url: str) -> Path:
    """Return the path of a file:/// address.

    Raises:
        DownloadError: The address names a host.
    """
    address = urlsplit(url)
    if address.netloc not in {"", "localhost"}:
        raise DownloadError(f"{url} names a host; a local address has three slashes: file:///folder/file.")
    return Path(url2pathname(address.path))


def _copied(source: Path, part: Path, on_progress: Progress | None) -> bool:
    forget(part)
    if not source.is_file():
        return False
    total, held = source.stat().st_size, 0
    with source.open("rb") as original, part.open("wb") as copy:
        while chunk := original.read(_CHUNK_BYTES):
            copy.write(chunk)
            held += len(chunk)
            if on_progress:
                on_progress(held, total)
        copy.flush()
        os.fsync(copy.fileno())
    return True


def _streamed(client: httpx.Client, url: str, part: Path, on_progress: Progress | None) -> bool:
    version_file = _version_file(part)
    version = version_file.read_text() if version_file.exists() else ""
    held = part.stat().st_size if version and part.exists() else 0
    headers = {"Range": f"bytes={held}-", "If-Range": version} if held else {}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE}:
            forget(part)
        if _is_absent(response):
            return False
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
                forget(part)
                raise _TryAgainError("the server sent another range than the one asked for")
        else:
            forget(part)
            held = 0
            version_file.write_text(_version(response))
        length = response.headers.get("Content-Length", "")
        total = held + int(length) if length.isdigit() else None
        with part.open("ab") as sink:
            for chunk in response.iter_raw():
                sink.write(chunk)
                held += len(chunk)
                if on_progress:
                    on_progress(held, total)
            sink.flush()
            os.fsync(sink.fileno())
    version_file.unlink(missing_ok=True)
    return True


def _version(response: httpx.Response) -> str:
    tag: str = response.headers.get("ETag", "")
    date: str = response.headers.get("Last-Modified", "")
    # A weak tag promises the same meaning, not the same bytes: no ground to resume on.
    return date if not tag or tag.startswith("W/") else tag


def _is_absent(response: httpx.Response) -> bool:
    """Tell an absent file from one that is there; raise on any other answer."""
    status = response.status_code
    if status == httpx.codes.NOT_FOUND:
        return True
    reason = f"it answered {status} {response.reason_phrase}"
    if status in {416, 418, 429} or status >= 500:
        raise _TryAgainError(reason, retry_after_s(response.headers))
    if status not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
        raise DownloadError(
            f"{response.url} could not be had: {reason}. "
            "Check the address in platform.yaml, and whether this network may reach it."
        )
    return False


@functools.cache
def _trust() -> ssl.SSLContext:
    """Load the certificates once: it costs more than a small request."""
    return httpx.create_ssl_context()


def _with_retries(ask: Callable[[httpx.Client], _T], url: str, retry: Retry) -> _T:
    backoff = tenacity.wait_exponential(multiplier=retry.first_wait_s, max=retry.longest_wait_s) + tenacity.wait_random(
        0, retry.first_wait_s
    )

    def attempt(client: httpx.Client) -> _T:
        try:
            return ask(client)
        except httpx.TransportError as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            raise DownloadError(f"{url} could not be had: {error}. Check the address.") from error

    def asked_to_wait_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return (error.retry_after_s if isinstance(error, _TryAgainError) else None) or 0.0

    def is_enough(state: tenacity.RetryCallState) -> bool:
        return state.attempt_number >= retry.attempts or asked_to_wait_s(state) > retry.longest_retry_after_s

    def log(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _LOG.warning(
            "download_retried",
            url=url,
            attempt=state.attempt_number,
            wait_s=round(state.upcoming_sleep, 3),
            reason=str(error),
        )

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TryAgainError),
        wait=lambda state: max(backoff(state), asked_to_wait_s(state)),
        stop=is_enough,
        before_sleep=log,
        reraise=True,
    )
    timeouts = httpx.Timeout(60.0, connect=15.0)
    with httpx.Client(timeout=timeouts, follow_redirects=True, headers={"Accept-Encoding": "identity"}) as client:
        try:
            return retrying(attempt, client)
        except _TryAgainError as error:
            pause = f" It asks for a pause of {error.retry_after_s:.0f} s." if error.retry_after_s else ""
            tries = retrying.statistics["attempt_number"]
            raise DownloadError(
                f"{url} could not be had in {tries} attempt{'s' * (tries > 1)}: {error}.{pause} "
                "Check the network, or run again later: a partial download goes on where it stopped."
            ) from error
