"""A stand-in of the Hugging Face hub on loopback: the requests of an upload, and nothing else."""

import base64
import hashlib
import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LARGE = (".tar", ".safetensors")
"""Endings of the files that are stored as large ones; others are part of the commit."""


class Hub:
    """State of the stand-in: repositories, large files, and what was asked.

    ``fails`` maps a part of a path to the HTTP status that a request for it gets, ``token`` is the
    one that may write.
    """

    def __init__(self):
        self.repositories = {}  # name → path → bytes
        self.commits = Counter()
        self.large = {}
        self.fails = {}
        self.asked = Counter()
        self.token = "hf_stand_in"
        self.private = {}
        self.url = ""

    def head(self, name):
        return hashlib.sha1(f"{name} {self.commits[name]}".encode()).hexdigest()

    def tree(self, name):
        return [entry_of(path, data) for path, data in sorted(self.repositories[name].items())]

    def commit(self, name, lines):
        header, *changes = [json.loads(line) for line in lines.splitlines()]
        if header["value"].get("parentCommit") not in (None, self.head(name)):
            return 412, {"error": "the branch has moved"}
        for change in changes:
            value = change["value"]
            data = (
                self.large[value["oid"]]
                if change["key"] == "lfsFile"
                else base64.b64decode(value["content"])
            )
            self.repositories[name][value["path"]] = data
        self.commits[name] += 1
        return 200, {
            "commitUrl": f"{self.url}/datasets/{name}/commit/{self.head(name)}",
            "commitOid": self.head(name),
        }


def entry_of(path, data):
    """A file as the hub lists it."""
    entry = {"type": "file", "path": path, "size": len(data), "oid": blob_of(data)}
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return entry


def blob_of(data):
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers of the stand-in."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def serve(self):
        hub, path = self.hub, urlsplit(self.path).path
        body = self.body()
        hub.asked[f"{self.command} {path}"] += 1
        for part, status in hub.fails.items():
            if part in path:
                return self.answer(status, {"error": "as the test wants it"})
        if not path.startswith("/lfs/") and (
            self.headers.get("Authorization") != f"Bearer {hub.token}"
        ):
            return self.answer(401, {"error": "Invalid username or password."})
        return self.answer(*self.found(path, body))

    do_GET = do_POST = do_PUT = serve  # noqa: N815 - the names of http.server

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def found(self, path, body):
        hub = self.hub
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.repositories:
                return 409, {"error": "exists", "url": f"{hub.url}/datasets/{name}"}
            hub.repositories[name] = {".gitattributes": b"*.tar filter=lfs\n"}
            hub.private[name] = asked.get("visibility") == "private" or asked.get("private", False)
            return 200, {"url": f"{hub.url}/datasets/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.startswith("/lfs/"):
            hub.large[path.removeprefix("/lfs/")] = body
            return 200, {}
        if path.endswith("/objects/batch"):
            return 200, {
                "transfer": "basic",
                "objects": [self.object(one) for one in objects(body)],
            }
        name = "/".join(path.split("/")[3:5])
        if name not in hub.repositories:
            return 404, {"error": "no such repository"}
        rest = path.split("/")[5:]
        if not rest or rest[0] == "revision":
            return 200, {"id": name, "sha": hub.head(name)}
        if rest[0] == "tree":
            return 200, hub.tree(name)
        if rest[0] == "preupload":
            modes = [mode_of(hub.repositories[name], one) for one in json.loads(body)["files"]]
            return 200, {"files": modes}
        return hub.commit(name, body)

    def object(self, one):
        entry = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in self.hub.large:
            entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}
        return entry

    def log_message(self, *_):
        """Stay silent."""


def objects(body):
    return json.loads(body)["objects"]


def mode_of(files, one):
    path = one["path"]
    mode = "lfs" if path.endswith(LARGE) else "regular"
    known = blob_of(files[path]) if path in files else None
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known}


@contextmanager
def served():
    """Run a stand-in; yield it."""
    hub = Hub()
    handler = type("OwnHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
