"""An S3-speaking server on this machine, in a process of its own, and a proxy before it that fails as it is told."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("error", "reset", "truncated")
"""What a failing request meets in turn: status 500, a connection that ends, a body that ends in its middle."""

KEYS = {
    "AWS_ACCESS_KEY_ID": "loopback",
    "AWS_SECRET_ACCESS_KEY": "LOOPBACK+SECRET/KEY",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def s3_server(timeout: float = 60.0) -> Iterator[int]:
    """Run moto's server (packages ``moto[s3]``, ``flask``, ``flask-cors``) and give its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            end = time.monotonic() + timeout
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise OSError("moto's server did not start")
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def environment(port: int) -> dict[str, str]:
    """Return the variables by which S3 is the server at a port."""
    return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


class Proxy:
    """A proxy before the server at ``port``: of ``every`` so many GET and HEAD requests one fails, as ``faults`` say.

    ``"stalled"`` requests get no answer for ``stall`` seconds, all others theirs after ``delay``. ``refused``: paths
    whose requests all fail so. ``seen`` counts requests by method, ``failed`` by fault.
    """

    def __init__(self, port: int, **how: Any) -> None:
        self.upstream, self._lock = port, threading.Lock()
        self.set(**how)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def set(
        self,
        *,
        every: int = 0,
        faults: tuple[str, ...] = FAULTS,
        stall: float = 5.0,
        delay: float = 0.0,
        refused: tuple[str, ...] = (),
        methods: tuple[str, ...] = ("GET", "HEAD"),
    ) -> None:
        """Fail differently from now on, and count anew."""
        self.every, self.faults, self.stall, self.refused, self.methods = (
            every,
            faults,
            stall,
            refused,
            methods,
        )
        self.delay = delay
        self.seen: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str) -> str:
        """Decide what a request meets, "" for the server itself."""
        with self._lock:
            self.seen[method] += 1
            hit = method in self.methods and (
                any(one in path for one in self.refused)
                or (self.every > 0 and sum(self.seen[one] for one in self.methods) % self.every == 0)
            )
            if not hit:
                return ""
            found = self.faults[self.failed.total() % len(self.faults)]
            self.failed[found] += 1
            return found

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.server_side = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=60)

            def finish(self) -> None:
                self.server_side.close()
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.fault(self.command, self.path)
                time.sleep(proxy.delay)
                if fault == "stalled":
                    time.sleep(proxy.stall)
                if fault in ("stalled", "reset"):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault == "error":
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.server_side.request(self.command, self.path, body, dict(self.headers))
                found = self.server_side.getresponse()
                content = found.read()
                self.send_response(found.status)
                for name, value in found.getheaders():
                    if name.lower() not in (
                        "transfer-encoding",
                        "connection",
                        "content-length",
                        "date",
                        "server",
                    ):
                        self.send_header(name, value)
                length = found.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if fault == "truncated":
                    content = content[: len(content) // 2]
                    self.close_connection = True
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):  # who asked has given up
                        self.wfile.write(content)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

        return Handler


def fill(port: int, bucket: str, folder: str | os.PathLike[str], prefix: str = "") -> int:
    """Put the files of a folder into a new bucket, and return how many."""
    client = _client(port)
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket)
    count = 0
    for place, _, files in os.walk(folder):
        for name in sorted(files):
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                key = "/".join(part for part in (prefix, os.path.relpath(path, folder)) if part)
                client.put_object(Bucket=bucket, Key=key, Body=file.read())
            count += 1
    return count


@functools.cache
def _client(port: int) -> Any:
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
