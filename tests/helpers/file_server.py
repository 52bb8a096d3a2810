# SPDX-License-Identifier: Apache-2.0
"""A local HTTP server of files that understands Range, and fails when told to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Attributes:
    files: name to content; may change between requests.
    answers: for the next GETs, in order: a number of bytes of the body after which the connection breaks, a status
        code to answer as "503", or None for a whole answer. When it is used up every answer is whole.
    ranges: whether the server honours Range.
    requests: (method, name, Range header) of every request.
    """

    files: dict[str, bytes]
    answers: list[int | str | None] = field(default_factory=list)
    ranges: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def gets(self) -> list[str | None]:
        """The Range headers of the GETs."""
        return [asked for method, _, asked in self.requests if method == "GET"]


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """The server, until the block ends."""
    state = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer("GET")

        def do_HEAD(self) -> None:
            self.answer("HEAD")

        def answer(self, method: str) -> None:
            name, asked = self.path.lstrip("/"), self.headers.get("Range")
            state.requests.append((method, name, asked))
            fault = state.answers.pop(0) if method == "GET" and state.answers else None
            if isinstance(fault, str) or name not in state.files:
                self.send_error(int(fault) if isinstance(fault, str) else 404)
                return
            content = state.files[name]
            start, end = 0, len(content)
            if asked and state.ranges:
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), min(int(last) + 1, len(content))
            if start >= end:
                self.send_error(416)
                return
            self.send_response(206 if asked and state.ranges else 200)
            if asked and state.ranges:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.end_headers()
            if method == "GET":
                body = content[start:end]
                self.wfile.write(body if fault is None else body[:fault])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that went away is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
