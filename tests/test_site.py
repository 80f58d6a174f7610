"""The site: links resolve, nothing is asked of another server, nothing names this machine."""

import html
import re
import shutil
import subprocess

import pytest

from saeutils import site
from saeutils.profiles import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "figures" / "demo").is_dir(),
                                reason="no published figures: make publish")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The whole site, with an atlas and a report card of a made-up run."""
    run = tmp_path_factory.mktemp("run")
    (run / "demo" / "atlas").mkdir(parents=True)
    (run / "demo" / "atlas" / "index.html").write_text("<!DOCTYPE html><title>Atlas</title>")
    (run / "figures").mkdir()
    (run / "figures" / "report_card.md").write_text("# Card\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    target = tmp_path_factory.mktemp("made") / "site"
    site.build(target, "demo", run)
    return target


def pages(folder):
    return sorted(folder.rglob("*.html"))


def test_every_notebook_and_exercise_has_its_page(built):
    names = [p.relative_to(ROOT).with_suffix(".html") for p in
             (*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks").glob("*/E*.ipynb"))]
    index = (built / "index.html").read_text(encoding="utf-8")
    for name in names:
        assert (built / name).is_file() and f'href="{name.as_posix()}"' in index
    for name in ("gallery.html", "data.html", "report_card.html", "atlas_demo.html",
                 "notebooks/exercises/index.html"):
        assert (built / name).is_file() and f'href="{name}"' in index, name


def test_links_and_pictures_resolve(built):
    for page in pages(built):
        text = page.read_text(encoding="utf-8")
        for address in re.findall(r'\b(?:href|src)="([^"]*)"', text):
            if address.startswith(("http", "data:", "mailto:")):
                continue
            path, _, anchor = html.unescape(address).partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), f"{page.name}: {address}"
            if anchor and file.suffix == ".html":
                ids = re.findall(r'\bid="([^"]+)"', file.read_text(encoding="utf-8"))
                assert html.unescape(anchor) in map(html.unescape, ids), f"{page.name}: {address}"


def test_nothing_is_fetched_from_outside(built):
    for path in [*pages(built), *built.rglob("*.css"), *built.rglob("*.js")]:
        text = re.sub(r'<a\b[^>]*href="https?://[^"]*"', "<a", path.read_text(encoding="utf-8"))
        assert not re.search(r'(src|href|action)="(https?:)?//', text), path.name
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//|fetch\(|XMLHttp", text), path.name


def test_no_folder_of_this_machine(built):
    for path in pages(built):
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path.name


def test_tables_scroll_and_notebooks_have_contents(built):
    text = (built / "notebooks" / "00_tour.html").read_text(encoding="utf-8")
    assert text.count("<table") == text.count('<div class="scroll"><table') > 1
    anchors = re.findall(r'<nav class="contents".*?</nav>', text, flags=re.DOTALL)[0]
    assert anchors.count("<li>") > 5 and "<script>" not in text
    assert "01_data_preparation.html" in text.split('class="turn"')[1]


def test_relative_addresses_by_hand():
    assert site._between("a/b/c.html", "a/d.html") == "../d.html"
    assert site._between("index.html", "a/d.html") == "a/d.html"
    assert site._between("a/b/c.html", "x.html") == "../../x.html"
    assert site._between("a/c.html", "a/d.html") == "d.html"


def test_a_link_to_a_file_outside_the_site_becomes_its_text(tmp_path):
    body = 'see <a href="../saeutils/protocol.py">the <i>rules</i></a>, <a href="#x">here</a>'
    source = ROOT / "notebooks" / "00_tour.ipynb"
    assert site.relink(body, "notebooks/00_tour.html", source, {}, tmp_path) == (
        'see the <i>rules</i>, <a href="#x">here</a>')


def test_another_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        site.build(tmp_path, "demo", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="figures/nothing is missing"):
        site.build(tmp_path / "new", "nothing", tmp_path)


def test_header_of_a_notebook_gives_title_and_question():
    book = site.read_book(ROOT / "notebooks" / "04_probing.ipynb")
    assert book.title.startswith("04") and book.question.endswith("?")
    assert book.question[0].isupper() and book.page == "notebooks/04_probing.html"


@pytest.mark.slow
def test_pages_open_in_chromium_without_errors(built):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no chromium here")
    for page in (built / "index.html", built / "notebooks" / "00_tour.html"):
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             "--v=0", "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True,
            timeout=120)
        assert 'data-theme="' in done.stdout and ">Dark<" in done.stdout
        assert "CONSOLE" not in done.stderr
