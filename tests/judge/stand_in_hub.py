"""A stand-in of the Hub's HTTP API, as far as sending and fetching a few files goes."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

SHA = "a" * 40
TOKEN = "hf_secret"


class Hub:
    """The repositories: name -> path -> content; `private` ones ask for the token."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.downloads: list[str] = []
        self.address = ""
        self.commits = 0

    @property
    def sha(self) -> str:
        """Of the newest commit, `SHA` of the first one."""
        return SHA if self.commits < 2 else f"{self.commits:040x}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(self.path)
        if not self._may_write():
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'me'}/{request['name']}"
            if request.get("private") or request.get("visibility") == "private":
                self.hub.private.add(name)
            self.hub.repositories.setdefault(name, {})
            self._answer(200, {"url": f"{self.hub.address}/{name}"})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            self._answer(200, {"files": modes})
        elif "/commit/" in path:
            files = self.hub.repositories[self._name(path)]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "deletedFile":
                    del files[entry["value"]["path"]]
            self.hub.commits += 1
            url = f"{self.hub.address}/{self._name(path)}/commit/{self.hub.sha}"
            self._answer(200, {"commitUrl": url, "commitOid": self.hub.sha, "hookOutput": ""})
        else:
            self._answer(404, {"error": path})

    def do_GET(self) -> None:
        path = unquote(self.path).partition("?")[0]
        name = self._name(path)
        if name not in self.hub.repositories or not self._may_read(name):
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        files = self.hub.repositories[name]
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": file_name, "size": len(content), "oid": _oid(content)}
                for file_name, content in files.items()
            ]
            self._answer(200, entries)
        elif "/resolve/" in path:
            content = files.get(path.split("/resolve/")[1].partition("/")[2])
            if content is None:
                self._answer(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
                return
            if self.command == "GET":
                self.hub.downloads.append(path)
            headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self.hub.sha}
            self._answer(200, content, headers)
        else:
            siblings = [{"rfilename": file_name} for file_name in files]
            self._answer(200, {"id": name, "sha": self.hub.sha, "siblings": siblings})

    do_HEAD = do_GET

    def _name(self, path: str) -> str:
        parts = path.removeprefix("/api/models").strip("/").split("/")
        return "/".join(parts[:2])

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _may_read(self, name: str) -> bool:
        return name not in self.hub.private or self._may_write()

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
