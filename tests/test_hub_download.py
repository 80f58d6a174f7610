"""The first download, against a local server that answers as the model hub does."""

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import stand_ins

from saeutils.encoders_hub import PINNED
from saeutils.profiles import ROOT

CODE = """
import sys
from saeutils.encoders import load_encoder
try:
    encoder = load_encoder(sys.argv[1])
except ValueError as error:
    sys.exit(f"error: {error}")
print(encoder.name, encoder.source, type(encoder.model).__name__, encoder.fingerprint[:12])
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Files of a hub cache, under the addresses and with the headers of the model hub."""

    cache: Path
    spoil = False
    asked: list[str]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append(f"{self.command} {self.path}")
        parts = self.path.strip("/").split("/")
        org, name, revision, file = parts[0], parts[1], parts[3], parts[-1]
        top = self.cache / f"models--{org}--{name}"
        if not top.is_dir():
            return self.refuse("RepoNotFound", 404)
        commit = next((top / "snapshots").iterdir()).name
        if revision not in (commit, "main"):
            return self.refuse("RevisionNotFound", 404)
        path = top / "snapshots" / commit / file
        if not path.is_file():
            return self.refuse("EntryNotFound", 404, commit)
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{path.resolve().name}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(bytes(len(content)) if self.spoil and file.endswith(".bin")
                             else content)

    def refuse(self, code, status, commit=None):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return stand_ins.build(tmp_path_factory.mktemp("hub"), ["hubert"])


@pytest.fixture()
def hub(full):
    handler = type("Handler", (Hub,), {"cache": full, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load(name, tmp_path, server, offline=False):
    where = f"http://127.0.0.1:{server.server_address[1]}"
    changes = {"HF_ENDPOINT": where, "HF_HOME": str(tmp_path / "home"),
               "SAEUTILS_DATA": str(tmp_path / "data"), "HF_HUB_DISABLE_XET": "1",
               "HF_HUB_OFFLINE": "1" if offline else "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | changes
    return subprocess.run([sys.executable, "-c", CODE, name], cwd=ROOT, env=environment,
                          capture_output=True, text=True, check=False)


def test_first_run_fetches_the_second_does_not(hub, tmp_path):
    first = load("hubert", tmp_path, hub)
    assert first.returncode == 0, first.stderr
    assert "fetching facebook/hubert-base-ls960 from the model hub, about 378 MB" in first.stdout
    fetched = [line for line in hub.RequestHandlerClass.asked if line.startswith("GET")]
    files = {line.rsplit("/", 1)[1] for line in fetched}
    assert files == {"config.json", "preprocessor_config.json", "pytorch_model.bin"}
    assert all(PINNED["hubert"].revision in line for line in hub.RequestHandlerClass.asked)
    hub.RequestHandlerClass.asked.clear()
    again = load("hubert", tmp_path, hub)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert again.returncode == 0 and not hub.RequestHandlerClass.asked
    assert load("hubert", tmp_path, hub, offline=True).returncode == 0


def test_a_spoilt_download_is_refused(hub, tmp_path):
    hub.RequestHandlerClass.spoil = True
    result = load("hubert", tmp_path, hub)
    assert result.returncode == 1 and "the model hub says" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name, words", [
    ("nobody/nothing", "no repository nobody/nothing@main"),
    ("facebook/hubert-base-ls960@v9", "no revision facebook/hubert-base-ls960@v9"),
])
def test_what_the_hub_does_not_have_is_named(hub, tmp_path, name, words):
    result = load(name, tmp_path, hub)
    assert result.returncode == 1 and words in result.stderr and "Traceback" not in result.stderr


def test_no_connection_tells_both_ways(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    result = load("hubert", tmp_path, hub)
    assert result.returncode == 1 and "Two ways" in result.stderr
    assert "Traceback" not in result.stderr
