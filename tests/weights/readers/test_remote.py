"""Checkpoints at a URL: copies that live as long as they are needed, and servers that misbehave."""

import gc
import http.server
import pickle
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import htsr
from htsr import InputError
from htsr.weights import open_source
from htsr.weights.readers import remote

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture
def bucket(tmp_path):
    save_file({"w": torch.randn(40, 30)}, tmp_path / "model.safetensors")
    fsspec.filesystem("memory").put(str(tmp_path), "/bucket/one", recursive=True)
    return "memory://bucket/one"


def copies(monkeypatch):
    made = []

    class Noted(remote.Copies):
        def __init__(self):
            super().__init__()
            made.append(self.path)

    monkeypatch.setattr(remote, "Copies", Noted)
    return made


def test_a_copy_lives_as_long_as_a_layer_that_may_read_it(bucket, monkeypatch):
    made = copies(monkeypatch)
    (layer,) = open_source(bucket).layers
    gc.collect()
    assert layer.load().shape == (40, 30)
    assert pickle.loads(pickle.dumps(layer)).load().shape == (40, 30)
    del layer
    gc.collect()
    assert len(made) == 1
    assert not made[0].exists()


def test_an_audit_leaves_no_copy(bucket, monkeypatch):
    made = copies(monkeypatch)
    assert len(htsr.analyze(bucket)) == 1
    gc.collect()
    assert [path.exists() for path in made] == [False]


@pytest.fixture
def server():
    """A server on this machine that answers in the way that the first part of the path names."""
    content = Path(__file__).read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            kind = self.path.split("/")[1]
            if kind == "error":
                self.send_error(500)
            elif kind == "circle":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
            elif kind == "short":
                self.send_response(200)
                self.send_header("Content-Length", str(len(content) + 1000))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.mark.parametrize("kind", ["error", "circle", "short", "text"])
def test_a_server_that_misbehaves_is_an_input_error(server, kind):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    with pytest.raises((InputError, FileNotFoundError)) as raised:
        htsr.analyze(f"{server}/{kind}/model.safetensors")
    assert len(str(raised.value)) > 20


@pytest.mark.parametrize(
    "url",
    ["zip://a::file:///etc/passwd", "nosuch://x", "memory://", "://", "file:///nowhere/x.pt", "zip://::zip://::x"],
)
def test_a_url_that_leads_nowhere_is_an_input_error(url):
    with pytest.raises((InputError, FileNotFoundError)):
        htsr.analyze(url)
