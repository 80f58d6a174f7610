"""The first download, against a local server that answers as the model hub does."""

import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import stand_ins

from saeutils.encoders_hub import PINNED
from saeutils.profiles import ROOT

CODE = """
import sys
from saeutils.encoders import load_encoder
for name in sys.argv[1:]:
    try:
        encoder = load_encoder(name)
        print(encoder.name, type(encoder.model).__name__, encoder.fingerprint[:12], flush=True)
    except ValueError as error:
        print("error:", error, flush=True)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Files of a hub cache, under the addresses and with the headers of the model hub."""

    cache: Path
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
            self.wfile.write(bytes(len(content)) if "MERT" in name and file.endswith(".bin")
                             else content)  # one download is spoilt on its way

    def refuse(self, code, status, commit=None):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def load(names, tmp_path, port):
    changes = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path / "home"),
               "SAEUTILS_DATA": str(tmp_path / "data"), "HF_HUB_DISABLE_XET": "1",
               "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run([sys.executable, "-c", CODE, *names], cwd=ROOT, env=kept | changes,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_first_run_fetches_and_what_is_wrong_is_named(tmp_path):
    cache = stand_ins.build(tmp_path / "served", ["hubert", "mert"])
    handler = type("Handler", (Hub,), {"cache": cache, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ["hubert", "hubert", "nobody/nothing", "facebook/hubert-base-ls960@v9", "mert"]
    told = load(names, tmp_path, server.server_address[1])
    server.shutdown()
    server.server_close()
    hubert = "fetching facebook/hubert-base-ls960 from the model hub, about 378 MB, once"
    assert told[0] == hubert and told[1] == told[2] and told[1].startswith("hubert HubertModel")
    text = "\n".join(told[3:])
    assert "the model hub has no repository nobody/nothing@main" in text
    assert "the model hub has no revision facebook/hubert-base-ls960@v9" in text
    assert "pytorch_model.bin of encoder mert has sha256" in text
    of_hubert = [line for line in handler.asked if PINNED["hubert"].revision in line]
    fetched = [line.rsplit("/", 1)[1] for line in of_hubert if line.startswith("GET")]
    assert sorted(fetched) == ["config.json", "preprocessor_config.json", "pytorch_model.bin"]
    again = load(["hubert", "ast"], tmp_path, port=9)  # a full cache needs no server
    assert again[0] == told[1]
    assert "Two ways: run once with network" in again[-1] and "extraction.model_dir" in again[-1]
