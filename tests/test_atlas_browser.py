"""The atlas in a real browser, from a file: no request, no error, players, filters, keys."""

import json
import os
import shutil
import subprocess
import time
import urllib.request

import made_atlas
import pytest

from saeutils import atlas

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = os.environ.get("SAEUTILS_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    not BROWSER, reason=f"no Chromium here: none of {', '.join(NAMES)} is installed")


class Page:
    """A headless tab, driven by Chromium's own protocol; remembers errors and requests."""

    def __init__(self, folder, *options):
        import websocket

        self.process = subprocess.Popen(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--remote-debugging-port=0", f"--user-data-dir={folder}", "--mute-audio",
             "--autoplay-policy=no-user-gesture-required", *options, "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        place, end = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (place.exists() and place.read_text().strip()):
            assert time.monotonic() < end and self.process.poll() is None, "Chromium did not start"
            time.sleep(0.1)
        port = place.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(item for item in json.load(answer) if item["type"] == "page")
        self.socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60,
                                                  suppress_origin=True)
        self.errors, self.requests, self.number = [], [], 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            name = message.get("method", "")
            if name == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif name in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled",
                          "Log.entryAdded"):
                self.errors.append(json.dumps(message["params"])[:400])
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def do(self, script):
        """Value of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True,
                           returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def key(self, key):
        for kind in ("keyDown", "keyUp"):
            more = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **more)

    def open(self, path, width=1366, height=768, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + 30
        while not self.do("document.readyState === 'complete' && !!document.querySelector('h2')"):
            assert time.monotonic() < end, f"the page does not draw itself: {self.errors}"
            time.sleep(0.1)

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    tab = Page(folder)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    content, _ = made_atlas.content(name=made_atlas.NASTY)
    path = tmp_path_factory.mktemp("atlas") / "index.html"
    return atlas.write_page(path, content), content


SHOWN = "[...document.querySelectorAll('#list button')].map(b => Number(b.dataset.latent))"
CHOSEN = "Number(document.querySelector('#list [aria-current=true]').dataset.latent)"
READY = """Promise.all([...document.querySelectorAll('audio')].map(a => new Promise(done => {
  if (a.duration) done(a.duration);
  a.addEventListener('loadedmetadata', () => done(a.duration));
  a.addEventListener('error', () => done(-1)); })))"""


def test_it_opens_from_a_file_without_error_or_request(page, made):
    page.open(made[0])
    assert page.do(SHOWN) == [latent["id"] for latent in made[1]["latents"]]
    page.do(READY)
    outside = [url for url in page.requests if not url.startswith(("file:", "blob:", "data:",
                                                                   "about:"))]
    assert not outside and not page.errors


def test_players_hold_sound_and_pictures_are_drawn_and_described(page, made):
    page.open(made[0])
    seconds = page.do(READY)
    shown = made[1]["latents"][0]
    items = shown["clips"] + shown.get("pair", {}).get("both", [])
    wanted = [made[1]["clips"][item["clip"]]["seconds"] for item in items]
    assert seconds == pytest.approx(wanted, abs=0.05)
    pictures = page.do("""Promise.all([...document.querySelectorAll('.spec img')].map(
        async i => { await i.decode(); return [i.naturalWidth, i.alt.length]; }))""")
    assert len(pictures) == len(items) and all(w > 20 and n > 30 for w, n in pictures)
    assert page.do("[...document.querySelectorAll('.spec .area')].every("
                   "p => p.getBBox().height > 0)")


def test_a_clip_plays_its_head_moves_and_a_second_one_stops_the_first(page, made):
    page.open(made[0])
    page.do(READY)
    page.key("1")
    moved = page.do("""new Promise(done => { const end = Date.now() + 20000; const look = () => {
        const at = document.querySelector('audio').currentTime;
        const head = parseFloat(document.querySelector('.head').style.left);
        if ((at > .05 && head > 1) || Date.now() > end) done([at, head]);
        else setTimeout(look, 20); }; look(); })""")
    assert moved[0] > 0.05 and moved[1] > 1
    page.key("2")
    assert page.do("new Promise(done => setTimeout(() => done([...document.querySelectorAll("
                   "'audio')].slice(0, 2).map(a => a.paused)), 100))") == [True, False]


def test_search_and_filters_shorten_the_list_and_can_be_undone(page, made):
    page.open(made[0])
    everything = page.do(SHOWN)

    def ask(name, value):
        page.do(f"(() => {{ const f = document.getElementById('{name}'); f.value = '{value}';"
                " f.dispatchEvent(new Event('input')); })()")
        return page.do(SHOWN)

    latents = {latent["id"]: latent for latent in made[1]["latents"]}
    one = everything[-1]
    assert ask("search", f"latent {one}") == [one]
    assert ask("search", "nothing like this") == []
    assert ask("search", "") == everything
    own = [f for f in everything if latents[f]["technique"] == "vibrato"]
    assert 0 < len(own) < len(everything) and ask("technique", "vibrato") == own
    ask("technique", "")
    stable = [f for f in everything if latents[f]["stability"]["code_correlation"][0] >= 0.5]
    assert 0 < len(stable) < len(everything) and ask("stability", ".5") == stable
    page.do("document.querySelector('#count button').click()")
    assert page.do(SHOWN) == everything
    assert ask("sort", "stability") == sorted(
        everything, key=lambda f: -latents[f]["stability"]["code_correlation"][0])


def test_keys_move_search_and_change_the_theme(page, made):
    page.open(made[0])
    order = page.do(SHOWN)
    page.key("j")
    page.key("ArrowDown")
    assert page.do(CHOSEN) == order[2]
    page.key("k")
    assert page.do(CHOSEN) == order[1]
    assert page.do("document.querySelector('#card h2').textContent") == f"Latent {order[1]}"
    assert page.do("location.hash") == f"#latent-{order[1]}"
    page.key("/")
    assert page.do("document.activeElement.id") == "search"
    page.key("Escape")
    before = page.do("document.documentElement.dataset.theme")
    page.key("t")
    page.key("t")
    assert {before, page.do("document.documentElement.dataset.theme")} == {"light", "dark"}
    page.do("localStorage.clear()")
    page.key("?")
    assert page.do("document.getElementById('keys').open")


def test_numbers_and_names_arrive_as_text(page, made):
    page.open(made[0])
    latent = made[1]["latents"][0]
    tiles = page.do("[...document.querySelectorAll('.facts dd')].map(d => d.textContent)")
    assert tiles[0] == f"{latent['facts']['unseen']['auc'][0]:.2f}"
    assert made_atlas.NASTY in page.do("document.querySelector('figcaption').textContent")
    assert page.do("document.querySelectorAll('img[src=x]').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1366])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(page, made, width, dark):
    page.open(made[0], width=width, height=800, dark=dark)
    page.do("document.querySelector('#list button').click()")
    assert page.do("document.documentElement.scrollWidth") <= width
    assert page.do("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    if width < 600:
        assert page.do("getComputedStyle(document.querySelector('.side')).display") == "none"
        page.do("document.querySelector('.back button').click()")
        assert page.do("getComputedStyle(document.getElementById('card')).display") == "none"


def test_missing_panels_are_named(page, tmp_path):
    content, _ = made_atlas.content(with_causes=False, with_pairs=False, with_seeds=False)
    page.open(atlas.write_page(tmp_path / "bare.html", content))
    text = page.do("document.getElementById('card').textContent")
    for words in ("no counterfactual clips", "Recorded causes: left out", "another seed"):
        assert words in text
    assert not page.errors


def test_material_without_labels_shows_singers_and_no_empty_bars(page, tmp_path):
    content, _ = made_atlas.content()
    for latent in content["latents"]:
        latent["technique"] = ""
        for row in latent["groups"]["technique"]:
            row["name"] = ""
        latent["groups"]["vowel"] = []
    page.open(atlas.write_page(tmp_path / "bare.html", content))
    heads = page.do("[...document.querySelectorAll('.group h4')].map(h => h.textContent)")
    assert heads == ["Singers (unseen)"]
    assert page.do("document.querySelectorAll('#list .bars rect').length") > 1
    assert page.do("document.getElementById('technique').offsetParent === null")
    assert "technique, best first" not in page.do("document.getElementById('sort').textContent")
    assert not page.errors
