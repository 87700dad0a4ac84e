"""A small server that speaks what the hub's client calls to make a repository and commit to it."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_ThisIsASecretOfTheTests"


@dataclass
class Hub:
    """Repositories by name: whether they are private, and their files.

    ``refuses`` is a path whose requests are answered with 403.
    """

    address: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    refuses: str = "\0"

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        repository = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        if "/preupload/" in path:
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith("safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return 200, {"files": modes}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": self._uploads(json.loads(body))}
        if "/commit/" in path:
            self._commit(repository, [json.loads(line) for line in body.splitlines()])
            where = f"{self.address}/{repository}/commit/abc"
            return 200, {"success": True, "commitOid": "abc", "commitUrl": where, "hookOutput": ""}
        return 404, {"error": f"no such path: {path}"}

    def get(self, path: str) -> tuple[int, Any]:
        repository = path.removeprefix("/api/models/").split("?")[0].removesuffix("/revision/main")
        if repository not in self.files:
            return 404, {"error": "Repository not found"}
        private = self.private[repository]
        siblings = [{"rfilename": name} for name in self.files[repository]]
        return 200, {"id": repository, "private": private, "sha": "abc", "siblings": siblings}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        repository = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.address}/{repository}", "name": repository}
        if repository in self.files:
            return 409, {"error": "You already created this model repo", **url}
        self.files[repository] = {}
        self.private[repository] = asked.get("visibility") == "private"
        return 200, url

    def _uploads(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.address}/lfs/{one['oid']}", "header": {}}},
            }
            for one in asked["objects"]
        ]

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.files[repository][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[repository][value["path"]] = self.objects[value["oid"]]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on this machine, as long as the block lasts."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _allowed(self) -> bool:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401, {"error": "Invalid username or password."})
                return False
            if hub.refuses in self.path:
                self._answer(403, {"error": "You don't have the rights to do that"})
                return False
            return True

        def do_GET(self) -> None:
            if self._allowed():
                self._answer(*hub.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self._allowed():
                self._answer(*hub.post(self.path, body))

        def do_PUT(self) -> None:
            # To a store of objects, whose addresses are signed.
            data = self.rfile.read(int(self.headers["Content-Length"]))
            hub.objects[self.path.rpartition("/")[2]] = data
            self._answer(200, {})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
