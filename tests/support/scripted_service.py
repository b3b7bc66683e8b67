"""An HTTP server whose answers are scripted: a service that is down, broken, or not what is behind the URL at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_UP = (0, None)
"""Closes the connection without an answer."""

Answer = tuple[int, Any]


@dataclass
class Received:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Scripted:
    """The server: what it answers, in turn (the last again and again), and what it got."""

    url: str
    answers: list[Answer]
    received: list[Received] = field(default_factory=list)

    def take(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def scripted_service(*answers: Answer, headers: Sequence[tuple[str, str]] = ()) -> Iterator[Scripted]:
    """Serve these answers, `(status, JSON)` each; a body of bytes is sent as it is."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            scripted.received.append(Received(self.command, self.path, dict(self.headers), body))
            status, content = scripted.take()
            if (status, content) == HANG_UP:
                self.close_connection = True
                return
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (*headers, ("content-length", str(len(sent)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = answer  # as http.server wants them

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        scripted = Scripted(f"http://127.0.0.1:{server.server_address[1]}", list(answers))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield scripted
        finally:
            server.shutdown()
            thread.join()
