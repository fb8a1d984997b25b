"""Models on the Hugging Face Hub: a server on this machine speaks its protocol, and the cache is the library's own."""

import hashlib
import http.server
import json
import sys
import threading
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import save, save_file

import htsr
from htsr.cli import main
from htsr.weights import open_source
from htsr.weights.readers import hub
from htsr.weights.readers.hub import _wanted_files

constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
WEIGHTS = save({"fc.weight": torch.arange(600.0).reshape(30, 20)}, metadata={"format": "pt", "made": "here"})
FILES = {
    "org/name": {
        "model.safetensors": WEIGHTS,
        "consolidated.safetensors": WEIGHTS,
        "pytorch_model.bin": b"not fetched",
        "config.json": b'{"model_type": "bert"}',
        "README.md": b"not fetched",
        "onnx/model.onnx": b"not fetched",
    },
    "org/variants": {"small.Q4_0.gguf": b"one", "large.Q8_0.gguf": b"two"},
}
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(http.server.BaseHTTPRequestHandler):
    """The requests that huggingface_hub makes to fetch a model."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        if path.startswith("/api/models/"):
            repo, _, rest = path.removeprefix("/api/models/").partition("/revision/")
            repo, _, tree = repo.partition("/tree/")
            revision = (tree or rest or "main").split("/")[0]
        else:
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
        if repo == "org/gated":
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if repo == "org/broken":
            return self.answer(400, b"{}")
        if repo not in FILES:
            return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if not path.startswith("/api/"):
            content = FILES[repo][name]
            etag = hashlib.sha1(content).hexdigest()
            return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
        if "/tree/" in path:
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES[repo].items()
            ]
            return self.answer(200, json.dumps(listed).encode())
        siblings = [{"rfilename": name} for name in FILES[repo]]
        return self.answer(200, json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode())

    do_HEAD = do_GET  # noqa: N815  # the name that http.server asks for

    def answer(self, status, content, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.chdir(tmp_path)
        yield server
        server.shutdown()


def fetched(server):
    return {path.partition("/resolve/")[2].partition("/")[2] for command, path in server.asked if "/resolve/" in path}


def test_weights_and_configuration_are_fetched_and_nothing_else(server):
    inventory = open_source("hf://org/name")
    assert [layer.name for layer in inventory.layers] == ["fc"]
    assert torch.equal(inventory.layers[0].load(), torch.arange(600.0).reshape(30, 20))
    assert inventory.source == "hf://org/name"
    assert inventory.metadata == {"commit": "a" * 40, "format": "pt", "made": "here"}
    assert fetched(server) == {"model.safetensors", "config.json"}
    assert open_source("hf://org/name@v1").metadata["commit"] == "b" * 40


def test_a_file_of_a_repository(server):
    assert [layer.name for layer in open_source("hf://org/name/consolidated.safetensors").layers] == ["fc"]
    assert fetched(server) == {"consolidated.safetensors", "config.json"}
    with pytest.raises(FileNotFoundError, match="no such file or folder in the repository"):
        open_source("hf://org/name/other.safetensors")


def test_the_cache_serves_when_there_is_no_network(server, monkeypatch):
    open_source("hf://org/name")
    server.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [layer.name for layer in open_source("hf://org/name").layers] == ["fc"]
    assert htsr.analyze("hf://org/name", bulk=False, progress=False)["fc"].row["M"] == 20
    with pytest.raises(htsr.InputError, match=r"hf://org/name@v1: cannot be fetched .* is not in the cache"):
        open_source("hf://org/name@v1")
    assert server.asked == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://org/missing", "the hub has no such repository, or it is private"),
        ("hf://org/gated", "the repository is gated: ask for access"),
        ("hf://org/name@no", "the repository has no such revision"),
        (
            "hf://org/variants",
            r"several checkpoints \(large.Q8_0.gguf, small.Q4_0.gguf\); name one: hf://org/variants/",
        ),
        ("hf://org", "expected hf://org/name"),
        ("hf://org/name/../../x", "expected hf://org/name"),
        ("hf://org/na--me", r"cannot be fetched \(HFValidationError"),
        ("hf://org/broken", "cannot be fetched .*BadRequest.* is not in the cache of huggingface_hub; go online"),
    ],
)
def test_what_the_hub_refuses_is_one_line(server, address, message):
    with pytest.raises(htsr.InputError, match=message) as caught:
        open_source(address)
    assert "\n" not in str(caught.value)


def test_without_the_library(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(htsr.InputError, match=r"needs the library huggingface_hub.*pip install 'htsr\[hub\]'"):
        open_source("hf://org/name")


def test_the_command_line_takes_names(server, tmp_path, capsys):
    assert main(["audit", "org/name@v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "hf://org/name@v1"
    assert main(["compare", "org/name", "hf://org/name", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["b"] == "hf://org/name"
    assert main(["audit", "org/missing"]) == 2
    assert "the hub has no such repository" in capsys.readouterr().err
    # what is there, or would be, is a path
    server.asked.clear()
    (tmp_path / "org").mkdir()
    assert main(["audit", "org/name"]) == 2
    assert (
        "org/name: no such file or directory; to fetch it from the hub, pass hf://org/name" in capsys.readouterr().err
    )
    save_file({"own": torch.randn(12, 9)}, tmp_path / "org" / "name.safetensors")
    (tmp_path / "org" / "name.safetensors").rename(tmp_path / "org" / "name")
    assert main(["audit", "runs/last.pt"]) == 2
    assert "hub" not in capsys.readouterr().err
    assert server.asked == []


def test_a_missing_path_says_how_to_fetch_it(server):
    with pytest.raises(
        FileNotFoundError, match="no such file or directory; to fetch it from the hub, pass hf://org/name"
    ):
        open_source("org/name")
    with pytest.raises(FileNotFoundError, match="a model on the hub has an address of the form hf://organisation/name"):
        open_source("name")
    for other in ("org/name/x", "/org/name", "org/name.pt", "name.pt"):
        with pytest.raises(FileNotFoundError, match=r"no such file or directory$"):
            open_source(other)
    assert server.asked == []


def test_which_files_belong_to_a_checkpoint():
    def of(*names, inside=""):
        return sorted(_wanted_files("hf://org/name", names, inside))

    assert of("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b.gguf", inside="a-00001-of-00002.gguf") == [
        "a-00001-of-00002.gguf", "a-00002-of-00002.gguf",
    ]  # fmt: skip
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert of(*shards, "model.fp16.safetensors", "consolidated.00.pth") == shards
    assert of("pytorch_model.bin", "config.json", "tf_model.h5") == ["config.json", "pytorch_model.bin"]
    assert of("adapter_config.json", "adapter_model.safetensors", "README.md") == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    pipeline = ["2_Dense/config.json", "2_Dense/model.safetensors", "config.json", "model.safetensors", "modules.json"]
    assert of(*pipeline, "2_Dense/pytorch_model.bin", "pytorch_model.bin", "1_Pooling/config.json") == pipeline
    assert of("sub/model.safetensors", "model.safetensors", inside="sub") == ["sub/model.safetensors"]
    diffusers = ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    assert of(*diffusers, "unet/diffusion_pytorch_model.fp16.safetensors", "whole.safetensors") == [
        *diffusers[:2], diffusers[2], "whole.safetensors",
    ]  # fmt: skip
    assert hub.is_hub_address("hf://org/name")
    assert not hub.is_hub_address("hf://datasets/org/name/file.npz")
