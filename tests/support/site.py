"""A web server of this machine whose answers depend on the path that it is asked for."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

from support.cli import KERAS

#: The file that it serves.
DATA = (KERAS / "seed95.keras").read_bytes()


class Server(http.server.BaseHTTPRequestHandler):
    """A server whose answers depend on the path that it is asked for."""

    requests: list[str] = []  # noqa: RUF012  # of one test each

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {self.path}")
        if path.startswith("/busy") and len(self.requests) < 4:
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/m.keras")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.startswith("/round"):
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.startswith("/none"):
            self.send_error(404)
            return
        size = len(DATA) + (1000 if path.startswith("/short") else 0)
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", '"one"')
        self.end_headers()
        if body and path.startswith("/still"):
            self.wfile.write(DATA[:100])
            self.wfile.flush()
            time.sleep(8)
        elif body:
            self.wfile.write(DATA)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(handler: Any = Server) -> Iterator[str]:
    """Yield the address of a running server, whose handler lists its requests."""
    handler.requests = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
