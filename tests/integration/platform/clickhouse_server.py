"""A ClickHouse server for tests: the real engine (chDB) behind the HTTP protocol, in a process that may be killed.

    python -m tests.integration.platform.clickhouse_server PORT FOLDER

What it knows of the protocol is what clickhouse-connect asks without compression: statements in the query string or
the body, data after the statement, parameters, exception codes. It knows no users and no sessions.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import chdb.session

REPOSITORY = Path(__file__).parents[3]
START_S = 20.0
INSERT = re.compile(r"\s*INSERT\s+INTO\s+(?P<into>.+?)\s+FORMAT\s+(?P<format>\w+)\s*$", re.IGNORECASE | re.DOTALL)
FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)")


class ClickHouseServer:
    """The server as a process of its own, on a port that stays its own when it is away."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}?compress=false"
        self._port = port
        self._command = [sys.executable, "-m", __spec__.name, str(port), str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, cwd=REPOSITORY)
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/ping", timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """SIGKILL: what was not answered may or may not have been done."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    session: chdb.session.Session
    asking = threading.Lock()

    def do_GET(self) -> None:
        self._send(200, b"Ok.\n") if self.path == "/ping" else self._answer(b"")

    def do_POST(self) -> None:
        if self.headers["Transfer-Encoding"] == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer(body)

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def log_message(self, format: str, *args: object) -> None:
        """Not logged."""

    def _answer(self, body: bytes) -> None:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        statement = given.get("query", "")
        if not statement:
            line, _, rest = body.partition(b"\n")
            statement, body = (
                (line.decode(), rest) if INSERT.match(line.decode(errors="replace")) else (body.decode(), b"")
            )
        elif not INSERT.match(statement):
            statement, body = f"{statement}\n{body.decode()}", b""
        parameters = {name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")}
        try:
            with self.asking:
                answer = self._ask(statement, body, given.get("database"), parameters)
        except RuntimeError as error:
            code = CODE.search(str(error))
            self._send(500, str(error).encode(), {"X-ClickHouse-Exception-Code": code[1] if code else "1002"})
        else:
            self._send(200, answer, {"X-ClickHouse-Summary": "{}", "X-ClickHouse-Timezone": "UTC"})

    def _ask(self, statement: str, body: bytes, database: str | None, parameters: dict[str, str]) -> bytes:
        if database:
            self.session.query(f"USE `{database}`")
        insert = INSERT.match(statement)
        if insert is not None:
            with tempfile.NamedTemporaryFile() as data:
                data.write(body)
                data.flush()
                self.session.query(f"INSERT INTO {insert['into']} FROM INFILE '{data.name}' FORMAT {insert['format']}")
            return b""
        found = FORMAT.search(statement)
        answer: bytes = self.session.query(
            FORMAT.sub("", statement), found[1] if found else "TabSeparated", params=parameters
        ).bytes()
        return answer

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main(port: str, folder: str) -> None:
    """Serve until killed."""
    _Handler.session = chdb.session.Session(folder)
    ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
