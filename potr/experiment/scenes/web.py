# SPDX-License-Identifier: Apache-2.0
"""HTTP for large files: requests whose failures are sorted into worth another try or not, and a file read by ranges."""

from __future__ import annotations

import errno
import http.client
import io
import logging
import time
import urllib.error
import urllib.request
from typing import Any

from potr.errors import PotrError

log = logging.getLogger(__name__)

RETRIES, WAIT, TIMEOUT = 5, 1.0, 60.0  # attempts in a row without a byte; seconds before the next one; without a byte
CHUNK = 1 << 20  # bytes read at once
_WORTH_RETRYING = (408, 429, 500, 502, 503, 504)


class Stopped(Exception):
    """The connection broke, or the server said to come back."""


class RangeNotSatisfiable(Exception):
    """The server has no byte at the place asked for; ``content_range`` is its answer, "bytes */SIZE"."""

    def __init__(self, content_range: str) -> None:
        super().__init__(content_range)
        self.content_range = content_range


def open_url(url: str, headers: dict[str, str] | None = None, *, method: str = "GET", timeout: float = TIMEOUT) -> Any:
    """The response, to be closed by the caller.

    Raises:
        Stopped: worth another try.
        RangeNotSatisfiable: answer 416.
        PotrError: not worth one.
    """
    headers = {"User-Agent": "potr", "Accept-Encoding": "identity"} | (headers or {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=timeout)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise RangeNotSatisfiable(refused.headers.get("Content-Range", "")) from None
            answer = f"the server answered {refused.code} {refused.reason}"
        if refused.code in _WORTH_RETRYING:
            raise Stopped(answer) from None
        raise PotrError(f"{url}: {answer}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Stopped(f"cannot connect ({getattr(error, 'reason', None) or error})") from None
    except ValueError as error:
        raise PotrError(f"{url}: not an address: {error}") from None


def read_chunk(response: Any, size: int = CHUNK) -> bytes:
    """The next bytes, none at the end; Stopped where the connection breaks."""
    try:
        chunk: bytes = response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise Stopped(f"the connection broke ({type(error).__name__})") from None
    return chunk


def version_of(headers: Any) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change; None where the server gives neither."""
    tag = headers.get("ETag", "W/")
    version: str | None = headers.get("Last-Modified") if tag.startswith("W/") else tag
    return version


class RemoteFile(io.RawIOBase):
    """A file on a server as a seekable stream; each place read is asked for by Range, runs in one request.

    Wrap it in ``io.BufferedReader``: zipfile then reads an archive's directory and single members without the rest.
    A broken connection is taken up where it broke.

    Attributes:
        size: of the file, in bytes.
        received: bytes that came so far.

    Raises:
        PotrError: the server does not know Range, the file changes meanwhile, or ``retries`` attempts bring nothing.
    """

    def __init__(self, url: str, *, retries: int = RETRIES, wait: float = WAIT, timeout: float = TIMEOUT) -> None:
        super().__init__()
        self.url, self.received = url, 0
        self._retries, self._wait, self._timeout = retries, wait, timeout
        self._place = self._response_place = 0
        self._response: Any = None
        self._version: str | None = None
        self.size = 0
        self._retried(self._open)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        if base + offset < 0:  # as files do; zipfile relies on it
            raise OSError(errno.EINVAL, f"{self.url}: a place before the first byte")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self.size or len(buffer) == 0:
            return 0
        chunk = self._retried(lambda: self._next(len(buffer)))
        buffer[: len(chunk)] = chunk
        self._place += len(chunk)
        self._response_place = self._place
        self.received += len(chunk)
        return len(chunk)

    def close(self) -> None:
        self._drop()
        super().close()

    def _next(self, size: int) -> bytes:
        if self._response is None or self._response_place != self._place:
            self._open()
        chunk = read_chunk(self._response, size)
        if not chunk:
            raise Stopped("the connection broke")
        return chunk

    def _open(self) -> None:
        """A response that starts at the current place."""
        self._drop()
        headers = {"Range": f"bytes={self._place}-"}
        if self._version is not None:
            headers["If-Range"] = self._version
        try:
            response = open_url(self.url, headers, timeout=self._timeout)
        except RangeNotSatisfiable:
            raise PotrError(f"{self.url}: the file on the server has changed") from None
        first, _, size = str(response.headers.get("Content-Range", "")).removeprefix("bytes ").partition("/")
        if response.status != http.client.PARTIAL_CONTENT or not first.startswith(f"{self._place}-"):
            response.close()
            what = "has changed on the server" if self.size else "can only be had whole from this server"
            raise PotrError(f"{self.url}: {what}")
        if not size.isdecimal() or (self.size and int(size) != self.size):
            response.close()
            raise PotrError(f"{self.url}: expected a file of {self.size or 'a known number of'} bytes, found '{size}'")
        self.size = int(size)
        self._version = self._version or version_of(response.headers)
        self._response, self._response_place = response, self._place

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _retried(self, attempt: Any) -> Any:
        for fruitless in range(self._retries + 1):
            try:
                return attempt()
            except Stopped as stopped:
                self._drop()
                if fruitless == self._retries:
                    raise PotrError(f"{self.url}: {stopped}") from None
                log.warning("%s: %s at byte %s, trying again", self.url, stopped, f"{self._place:,}")
                time.sleep(min(self._wait * 2**fruitless, 60.0))
        return None
