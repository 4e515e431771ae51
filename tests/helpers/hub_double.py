"""A hub on this machine: the part of its HTTP API that an upload uses, and a note of all it was sent.

Written after what huggingface_hub 2.4 asks for. Large files go by LFS; by Xet where a storage for it is named, whose
answers are those of an older version of its protocol, and which keeps nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from typing_extensions import override

XET_TOKEN = "for-the-storage-alone"
TOKEN = "hf_Zk39Qw7XmPtRvYbNcJsGfAeUoTiLd"
LARGE = (".safetensors", ".png")
"""What goes to large storage."""


@dataclass
class Branch:
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["initial commit"])

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((self.commits, sorted(self.files))).encode()).hexdigest()


@dataclass
class Repo:
    private: bool = False
    branches: dict[str, Branch] = field(default_factory=lambda: {"main": Branch({".gitattributes": b"x"})})


@dataclass
class Hub:
    """What the hub holds, what it is told to do wrong, and what it saw."""

    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large storage, by SHA256."""
    owners: tuple[str, ...] = ("me",)
    """Who may be written to with the token."""
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """By a part of `METHOD /path`: what the next such requests get instead: a status, an address to go to, an
    answer of another kind, or `hang up`."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    xet_storage: str = ""
    """Address of a `XetStorage`."""

    def asked(self, what: str) -> list[dict[str, Any]]:
        return [each for each in self.seen if what in each["what"]]

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repos[repo].branches[branch].files

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        """Status and answer."""
        if path.startswith("/storage/"):
            return self._store(path.removeprefix("/storage/"), body)
        if authorization != f"Bearer {TOKEN}":
            return 401, {"error": f"Invalid username or password, got {authorization}"}
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch("/".join(parts[:2]).removesuffix(".git"), json.loads(body))
        if parts[:2] != ["api", "models"] or len(parts) < 4:
            return 404, {"error": f"{method} {path} is not of this double"}
        repo = "/".join(parts[2:4])
        if repo not in self.repos:
            return 404, {"error": "Repository not found"}
        return self._of_repo(method, self.repos[repo], parts[4:], body, repo)

    def _of_repo(self, method: str, repo: Repo, parts: list[str], body: bytes, name: str) -> tuple[int, Any]:
        action, branch = parts if parts else ("revision", "main")
        if method == "POST" and name.split("/")[0] not in self.owners:
            return 403, {"error": "You don't have the rights to write here"}
        if action == "branch":
            repo.branches[branch] = Branch(dict(repo.branches["main"].files))
            return 200, {}
        if branch not in repo.branches:
            return 404, {"error": f"Invalid rev id: {branch}"}
        if action == "revision":
            return 200, self._info(repo, repo.branches[branch], name)
        if action == "xet-write-token":
            later = int(time.time()) + 3600
            return 200, {"casUrl": self.xet_storage, "exp": later, "accessToken": XET_TOKEN}
        if action == "preupload":
            return 200, {"files": [self._mode(repo.branches[branch], each, body) for each in json.loads(body)["files"]]}
        assert action == "commit", action
        return self._commit(repo.branches[branch], [json.loads(line) for line in body.splitlines()], name)

    def _info(self, repo: Repo, branch: Branch, name: str) -> dict[str, Any]:
        def sibling(path: str, content: bytes) -> dict[str, Any]:
            large = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return {"rfilename": path, "size": len(content), "blobId": oid} | (
                {"lfs": large} if path.endswith(LARGE) else {}
            )

        files = [sibling(path, content) for path, content in branch.files.items()]
        return {"id": name, "private": repo.private, "sha": branch.sha, "siblings": files, "tags": [], "downloads": 0}

    def _mode(self, branch: Branch, file: dict[str, Any], body: bytes) -> dict[str, Any]:
        ignored = ".gitignore" in branch.files and "gitIgnore" not in json.loads(body)
        mode = "lfs" if file["path"].endswith(LARGE) else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored, "oid": None}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] not in self.owners:
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        if name in self.repos:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        private = wanted.get("private", wanted.get("visibility") == "private")
        self.repos[name] = Repo(bool(private))
        return 200, {"url": f"{self.url}/{name}"}

    def _batch(self, repo: str, wanted: dict[str, Any]) -> tuple[int, Any]:
        assert repo in self.repos, repo
        objects = [{"oid": each["oid"], "size": each["size"]} for each in wanted["objects"]]
        for each in objects:
            if each["oid"] not in self.stored:
                each["actions"] = {"upload": {"href": f"{self.url}/storage/{each['oid']}"}}
        return 200, {"transfer": "basic", "objects": objects}

    def _store(self, oid: str, content: bytes) -> tuple[int, Any]:
        assert sha256(content) == oid
        self.stored[oid] = content
        return 200, {}

    def _commit(self, branch: Branch, lines: list[dict[str, Any]], name: str) -> tuple[int, Any]:
        header, *operations = lines
        if header["value"].get("parentCommit", branch.sha) != branch.sha:
            return 412, {"error": "A commit has happened since"}
        for each in operations:
            value = each["value"]
            if each["key"] == "file":
                branch.files[value["path"]] = base64.b64decode(value["content"])
            elif each["key"] == "lfsFile":
                branch.files[value["path"]] = value["oid"].encode() if self.xet_storage else self.stored[value["oid"]]
            else:
                assert each["key"] == "deletedFile", each
                del branch.files[value["path"]]
        branch.commits.append(header["value"]["summary"])
        url = f"{self.url}/{name}/commit/{branch.sha}"
        return 200, {"commitUrl": url, "commitOid": branch.sha, "success": True}


class XetStorage(Hub):
    """A storage for Xet on a host of its own, that takes whatever it is sent."""

    @override
    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        if path.startswith("/v1/xorbs"):
            return 200, {"was_inserted": True}
        return (200, {"result": 1}) if path == "/v1/shards" else (404, {})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve(hub: Hub, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a hub that runs until the end of the body."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self._body()
            path, authorization = urlsplit(self.path).path, self.headers.get("Authorization")
            what = f"{self.command} {path}"
            seen = {"what": what, "authorization": authorization, "query": urlsplit(self.path).query, "body": body}
            others = {name: value for name, value in self.headers.items() if name.lower() != "authorization"}
            hub.seen.append(seen | {"headers": others})
            queue = next((queue for part, queue in hub.faults.items() if part in what and queue), None)
            fault = queue.pop(0) if queue else None
            if fault == "hang up":
                self.connection.close()
                return
            if isinstance(fault, (bytes, dict)):
                self._send(200, fault)
            elif isinstance(fault, str):
                self._send(302, {}, {"Location": f"{fault}{path}"})
            elif fault is not None:
                self._send(fault, {"error": f"told to answer {fault}"})
            else:
                self._send(*hub.answer(self.command, path, body, authorization))

        do_GET = do_POST = do_PUT = do_CONNECT = answer  # noqa: N815

        def _body(self):
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, status, answer, headers=None):
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://{host}:{http.server_address[1]}"
    try:
        yield hub.url
    finally:
        http.shutdown()
        http.server_close()
