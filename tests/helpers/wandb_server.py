# SPDX-License-Identifier: Apache-2.0
"""As much of a W&B server, on 127.0.0.1, as its client needs to believe a run online; it keeps what it is sent."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "P", "name": "potr", "entity": {"id": "E", "name": "me"}}


class WandbServer(ThreadingHTTPServer):
    """``asked`` are the operations with their variables, ``history`` the rows, ``uploaded`` the files by name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.history: list[dict[str, Any]] = []
        self.uploaded: dict[str, bytes] = {}
        self.exit_code: int | None = None

    def handle_error(self, *_: Any) -> None:
        """The client drops connections when it ends."""

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = operation[1] if operation else ""
        self.asked.append((name, given))
        if name == "Viewer":
            return {"viewer": {"id": "V", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}}
        if name == "RunResumeStatus":
            return {"model": {**PROJECT, "bucket": None}}
        if name == "UpsertBucket":
            bucket = {"id": "B", "name": given["name"], "displayName": "", "historyLineCount": 0, "config": "{}"}
            return {"upsertBucket": {"bucket": {**bucket, "project": PROJECT}, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        if name == "ArtifactType":
            return {"project": {"artifact": None}}
        if name == "CreateArtifact":
            sequence = {"id": "S", "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": "A", "state": "COMMITTED", "artifactSequence": sequence}}}
        return {}

    def stream(self, sent: dict[str, Any]) -> None:
        lines = sent.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.history += [json.loads(line) for line in lines]
        self.exit_code = sent.get("exitcode", self.exit_code)


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        reply: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            reply = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(json.loads(body))
        elif self.path.startswith("/upload/"):
            self.server.uploaded[self.path.removeprefix("/upload/")] = body
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = _take  # noqa: N815 - the base class's names


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server for the duration of a test."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
