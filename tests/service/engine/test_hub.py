"""Pulls from a hub of our own on loopback, through the hub's real library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from prompts.errors import BadInput
from service.engine import downloading, hub
from service.engine.hub import HubFile, chosen
from service.engine.model_files import TOKENIZERS
from service.engine.weights import Source, find, pull, under_way
from service.errors import CannotRun

COMMIT = "a" * 40
TINY = Source("hf", "org/tiny")
WEIGHTS = b"safetensors " * 20_000


@dataclass
class Hub:
    """What the hub holds and how it fails: after `broken_after` bytes of the weights it hangs up, and at once when asked on."""

    files: dict[str, bytes]
    status: int = 200
    error_code: str = ""
    broken_after: int | None = None
    broken_times: int = 0
    lies: set[str] = field(default_factory=set)
    sent_bytes: dict[str, int] = field(default_factory=dict)

    def listing(self) -> dict[str, Any]:
        return {
            "id": "org/tiny",
            "sha": COMMIT,
            "cardData": {"license": "apache-2.0"},
            "siblings": [self.sibling(name, content) for name, content in self.files.items()],
        }

    def sibling(self, name: str, content: bytes) -> dict[str, Any]:
        about: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
        if name.endswith((".safetensors", ".gguf")):
            digest = hashlib.sha256(b"other" if name in self.lies else content).hexdigest()
            about["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
        return about


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def handler_of(state: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if state.status != 200:
                return self.give(state.status, b"", {"X-Error-Code": state.error_code})
            if self.path.startswith("/api/models/"):
                return self.give(200, json.dumps(state.listing()).encode(), {"Content-Type": "application/json"})
            name = self.path.split(f"/resolve/{COMMIT}/")[-1]
            content = state.files[name]
            etag = hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else blob_id(content)
            more = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if "Range" in self.headers:
                more["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.give(206 if "Range" in self.headers else 200, content[start:], more, name)

        def give(self, status: int, body: bytes, headers: dict[str, str], name: str = "") -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if state.broken_times and name.endswith(".safetensors"):
                cut = state.broken_after if state.sent_bytes.get(name, 0) == 0 else 0
                body, self.close_connection = body[:cut], True
                state.broken_times -= 1
            self.wfile.write(body)
            state.sent_bytes[name] = state.sent_bytes.get(name, 0) + len(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    state = Hub(
        {
            "config.json": b"{}",
            "tokenizer.json": b"{}",
            "model.safetensors": WEIGHTS,
            "README.md": b"---\n---\n",
            "a/b.json": b"{}",
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield state
    server.shutdown()
    server.server_close()


@pytest.mark.integration
def test_a_model_of_the_hub_is_taken_checked_and_kept(tmp_path: Path, hub_of: Hub) -> None:
    shares: list[float] = []
    folder = pull(TINY, tmp_path, lambda stage, share: shares.append(share))
    assert find(TINY, tmp_path) == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "turnout-model.json",
    ]  # fmt: skip
    manifest = json.loads((folder / "turnout-model.json").read_text())
    assert manifest["licence"] == "apache-2.0"
    assert manifest["revision"] == COMMIT
    assert manifest["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert shares == sorted(shares)
    assert not list(tmp_path.rglob("*.begun"))


@pytest.mark.integration
def test_a_pull_that_broke_off_is_gone_on_with(tmp_path: Path, hub_of: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "_PAUSE_S", 0.0)
    hub_of.broken_after = 100_000
    hub_of.broken_times = 6
    with pytest.raises(CannotRun, match="pull again to go on where it broke off"):
        pull(TINY, tmp_path)
    assert under_way(TINY, tmp_path) == "interrupted"
    assert find(TINY, tmp_path) is None
    hub_of.sent_bytes.clear()
    assert (pull(TINY, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert hub_of.sent_bytes["model.safetensors"] == len(WEIGHTS) - 100_000
    assert "config.json" not in hub_of.sent_bytes


@pytest.mark.integration
def test_a_file_that_is_not_what_the_hub_says_is_not_used(tmp_path: Path, hub_of: Hub) -> None:
    hub_of.lies.add("model.safetensors")
    with pytest.raises(CannotRun, match=r"model\.safetensors of hf:org/tiny is not what the hub says"):
        pull(TINY, tmp_path)
    assert find(TINY, tmp_path) is None
    assert not list(tmp_path.rglob("model.safetensors"))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "RepoNotFound", "no model 'org/tiny', or it is private"),
        (403, "GatedRepo", "accept its licence on its page"),
        (404, "RevisionNotFound", "no revision None"),
        (500, "", "did not give hf:org/tiny"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(
    tmp_path: Path, hub_of: Hub, status: int, code: str, said: str
) -> None:
    hub_of.status, hub_of.error_code = status, code
    with pytest.raises(CannotRun, match=said):
        pull(TINY, tmp_path)


@pytest.mark.integration
def test_without_a_network_the_error_says_so(tmp_path: Path, hub_of: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CannotRun, match="cannot be reached for hf:org/tiny"):
        pull(TINY, tmp_path)


@pytest.mark.integration
def test_the_hub_library_s_offline_mode_is_named(tmp_path: Path, hub_of: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CannotRun, match="HF_HUB_OFFLINE is set"):
        pull(TINY, tmp_path)


@pytest.mark.integration
def test_a_full_disk_leaves_nothing_of_a_download(tmp_path: Path, hub_of: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "_checked", full)
    with pytest.raises(CannotRun, match=r"the disk of .* is full"):
        pull(TINY, tmp_path)
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]


def listed(*names: str) -> list[HubFile]:
    return [HubFile(name, 1, "d" if "." in name else None, "b") for name in names]


def test_of_a_repository_only_what_a_model_needs_is_taken() -> None:
    names = [
        "model-1.safetensors",
        "consolidated.safetensors",
        "config.json",
        "vocab.json",
        "x.py",
        "a.bin",
        "onnx/model.onnx",
    ]
    assert [file.name for file in chosen(TINY, listed(*names))] == ["config.json", "vocab.json", "model-1.safetensors"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["config.json", "pytorch_model.bin"], "only as pytorch_model.bin, a pickle"),
        (["a.gguf", "b.gguf"], "name one of them after a colon, as in :a.gguf"),
        (["adapter_model.safetensors"], "no config.json: it is an adapter"),
        (["README.md"], "no weights"),
        (["config.json", "model.safetensors"], "no tokenizer"),
        (["config.json", "model.safetensors", "a/tokenizer.json"], "no tokenizer"),
    ],
)
def test_a_repository_without_a_safe_model_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        chosen(TINY, listed(*names))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_of_a_repository_its_only_tokenizer_is_taken(tokenizer: str) -> None:
    assert tokenizer in {file.name for file in chosen(TINY, listed("config.json", "model.safetensors", tokenizer))}


def test_a_gguf_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(BadInput, match=r"the repository holds b\.gguf"):
        chosen(Source("hf", "org/tiny", file="a.gguf"), listed("b.gguf"))
