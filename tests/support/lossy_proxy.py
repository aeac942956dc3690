"""An HTTP proxy in front of the S3 store that can lose replies: the request arrives, its answer
does not.

Requests go on unchanged, their Host header too: S3 signatures cover it, and the store checks the
signature against the header, not against its own address.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

__all__ = ["LossyProxy"]


@dataclass
class _Fault:
    """What is done to the next `times` requests that match."""

    method: str
    path_contains: str
    times: int
    delay_s: float = 0.0
    drops_reply: bool = False

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.path_contains in path


class LossyProxy:
    """A proxy on a free port of 127.0.0.1, used as a context manager.

    Attributes:
        endpoint: The URL to give to clients in place of the store's.
        requests: Requests by method that went through.
        log: (method, path) in the order of arrival.
    """

    def __init__(self, upstream_port: int) -> None:
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.dropped: list[tuple[str, str]] = []
        self.upstream_port = upstream_port
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LossyProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def drop_reply(self, method: str = "PUT", path_contains: str = "data/", times: int = 1) -> None:
        """Let the next matching requests reach the store, then close without their reply."""
        self._add(_Fault(method, path_contains, times, drops_reply=True))

    def delay(self, delay_s: float, method: str, path_contains: str = "", times: int = 1) -> None:
        """Hold the next matching requests for `delay_s` before they are sent on."""
        self._add(_Fault(method, path_contains, times, delay_s=delay_s))

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def record(self, method: str, path: str) -> _Fault | None:
        """Count a request and return the fault that it meets, if any."""
        with self._lock:
            self.requests[method] += 1
            self.log.append((method, path))
            fault = next((f for f in self._faults if f.matches(method, path)), None)
            if fault is not None:
                fault.times -= 1
                if fault.drops_reply:
                    self.dropped.append((method, path))
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Small replies after a body would otherwise wait for the client's delayed ACK (40 ms).
    disable_nagle_algorithm = True
    proxy: LossyProxy

    def _forward(self) -> None:
        fault = self.proxy.record(self.command, self.path)
        body = self._read_body()
        if fault is not None and fault.delay_s:
            time.sleep(fault.delay_s)
        try:
            status, reason, headers, content = self._ask_store(body)
        except (OSError, http.client.HTTPException):
            self._hang_up()  # the store is down: so are we
            return
        if fault is not None and fault.drops_reply:
            self._hang_up()
            return
        self.wfile.write(self._head(status, reason, headers, content) + content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while True:
            size_line = self.rfile.readline()
            parts.append(size_line)
            size = int(size_line.split(b";")[0], 16)
            parts.append(self.rfile.read(size) + self.rfile.readline())
            if size == 0:
                return b"".join(parts)

    def _ask_store(self, body: bytes) -> tuple[int, str, list[tuple[str, str]], bytes]:
        store = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream_port)
        try:
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                # The base class answered "100 Continue" itself; neither header is signed.
                if name.lower() not in ("expect", "connection"):
                    store.putheader(name, value)
            store.putheader("Connection", "close")
            store.endheaders()
            store.send(body)
            reply = store.getresponse()
            return reply.status, reply.reason, reply.getheaders(), reply.read()
        finally:
            store.close()

    def _head(
        self, status: int, reason: str, headers: list[tuple[str, str]], content: bytes
    ) -> bytes:
        hop_by_hop = {"connection", "transfer-encoding"}
        kept = [(name, value) for name, value in headers if name.lower() not in hop_by_hop]
        has_length = any(name.lower() == "content-length" for name, _ in kept)
        if not has_length and status not in (204, 304):
            kept.append(("Content-Length", str(len(content))))
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in kept)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr; the proxy keeps its own log."""
