"""The notebooks, figures, atlas and report card as a small static site; nothing from outside.

``python -m saeutils.site`` (``make site``) writes ``site/``: an index in reading order, each
committed notebook with its outputs as one page, the gallery, the workshop guide, and the atlas and
report card where a run has made them. No page asks another server: nbconvert's bare template is
used, which has neither MathJax nor require.js (no notebook has formulas in TeX).
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from saeutils import keys
from saeutils.profiles import ROOT
from saeutils.run import stopped_by_hand

FILES = Path(__file__).parent / "site_files"
ASKED = {"claim1": "is the information kept?", "claim2": "are attributes easier to read off?",
         "claim2b": "do latents show what the model encodes?"}
OUTSIDE = ("http://", "https://", "mailto:", "#", "data:")
FOOT = ("Code MIT, prose and figures CC BY 4.0. Where published values appear, they are labelled "
        "so. The paper: Mariotte et al. 2025, "
        '<a href="https://arxiv.org/abs/2509.24793">arXiv 2509.24793</a>.')


@dataclass(frozen=True)
class Book:
    """A notebook of the site: its file, its page, its title and its question."""

    source: Path
    page: str
    title: str
    question: str
    minutes: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m saeutils.site``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m saeutils.site",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", default="demo", help="whose published figures are shown")
    parser.add_argument("--run-name", default="")
    parser.add_argument("--target", default=str(ROOT / "site"))
    options = parser.parse_args(arguments)
    try:
        run_root = keys.chain(options.profile, options.run_name, upto="00")[0].run_root
        index = build(Path(options.target), options.profile, run_root)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return stopped_by_hand()
    print(f"open {index.relative_to(ROOT) if index.is_relative_to(ROOT) else index}")
    return 0


def build(target: Path, profile: str, run_root: Path) -> Path:
    """Write the whole site; returns the path of its index.

    Parameters
    ----------
    target
        Folder to write; removed first if it holds a site.
    profile
        Published figures are those of ``figures/<profile>``.
    run_root
        Folder of a run, for an atlas or report card that is not published.

    Raises
    ------
    ValueError
        The folder holds something else than a site; no published figures; a page that names a
        folder of this machine.
    """
    if target.exists() and any(target.iterdir()) and not (target / "site.css").is_file():
        raise ValueError(f"{target} holds something else: name an empty folder with --target")
    figures = ROOT / "figures" / profile
    if not figures.is_dir():
        raise ValueError(f"figures/{profile} is missing: publish a run first (make publish), or "
                         "choose another profile")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("site.css", "site.js"):
        shutil.copyfile(FILES / name, target / name)
    with open(target / "site.css", "a", encoding="utf-8") as handle:
        handle.write(code_colours())
    books, exercises = find_books()
    extras = copy_extras(target, figures, run_root)
    shutil.copytree(figures, target / "figures" / profile,
                    ignore=shutil.ignore_patterns("atlas*", "stage_keys.csv"))
    documents = {"gallery.html": ROOT / "figures" / "README.md", "data.html":
                 ROOT / "data" / "README.md", "notebooks/exercises/index.html":
                 ROOT / "notebooks" / "exercises" / "README.md"}
    documents = {page: path for page, path in documents.items() if path.is_file()}
    card = next((folder / "report_card.md" for folder in (figures, run_root / "figures")
                 if (folder / "report_card.md").is_file()), None)
    if card:
        documents["report_card.html"] = card
    pages = {book.source: book.page for book in (*books, *exercises)}
    pages |= {path: page for page, path in documents.items()}
    pages[ROOT / "README.md"] = "index.html"
    for order in (books, exercises):
        for i, book in enumerate(order):
            around = (order[i - 1] if i else None, order[i + 1] if i + 1 < len(order) else None)
            write_page(target, book.page, book.title, "notebook", notebook_body(book.source),
                       book.source, pages, around)
    for page, path in documents.items():
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
        write_page(target, page, title[1] if title else path.stem, "wide", markdown(text), path,
                   pages)
    body = index_body(books, exercises, documents, extras, profile, figures)
    write_page(target, "index.html", "Sparse autoencoders of singing: a companion", "wide", body,
               ROOT / "README.md", pages)
    return target / "index.html"


def find_books() -> tuple[list[Book], list[Book]]:
    """The committed notebooks in reading order, appendix last, and the exercises."""
    folder = ROOT / "notebooks"
    numbered = sorted(folder.glob("[0-9][0-9]_*.ipynb")) + sorted(folder.glob("appendix_*.ipynb"))
    return ([read_book(path) for path in numbered],
            [read_book(path) for path in sorted((folder / "exercises").glob("E*.ipynb"))])


def read_book(path: Path) -> Book:
    """Title, question and minutes from a notebook's header cell."""
    import nbformat

    header = nbformat.read(path, as_version=4).cells[0].source
    title = re.search(r"^# (.+)$", header, flags=re.MULTILINE)
    question = re.search(r"\*\*(?:The question\.|Question:)\**\s*(.+?)(?:\n\n|\*\*|$)", header,
                         flags=re.DOTALL)
    minutes = re.search(r"\| \*\*Takes\*\* \| (.+?) \|", header)
    page = path.relative_to(ROOT).with_suffix(".html").as_posix()
    return Book(path, page, title[1] if title else path.stem,
                _sentence(question[1]) if question else "", minutes[1] if minutes else "")


def notebook_body(path: Path) -> str:
    """A notebook's cells and outputs as HTML, without scripts."""
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="basic").from_filename(str(path))
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)
    return re.sub(r"<style scoped.*?</style>", "", body, flags=re.DOTALL)


def markdown(text: str) -> str:
    """Markdown as HTML, headings with ids."""
    from nbconvert.filters import markdown2html

    return markdown2html(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))


def code_colours() -> str:
    """Colours of the code cells, light and dark."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    dark = HtmlFormatter(style="one-dark").get_style_defs('[data-theme="dark"] .highlight')
    lines = [line for line in f"{light}\n{dark}".splitlines() if "{" in line and "line-height"
             not in line and "linenos" not in line]
    lines = [re.sub(r"background(-color)?: #[0-9a-fA-F]+;?", "", line) for line in lines]
    return "\n/* code */\n" + "\n".join(lines) + "\n"


def copy_extras(target: Path, figures: Path, run_root: Path) -> list[tuple[str, str, str]]:
    """Copy atlases; returns page, title and text of each.

    The whole atlas of a run is taken before the published cut of it.
    """
    found = [(path, f"atlas_{path.parent.parent.name}.html")
             for path in sorted(run_root.glob("*/atlas/index.html"))]
    found = found or [(path, path.name) for path in sorted(figures.glob("atlas*.html"))]
    for path, name in found:
        shutil.copyfile(path, target / name)
    several = len(found) > 1
    return [(name, "Atlas of latents" + (f", {name[6:-5].replace('_', ' ')}" if several else ""),
             "See, hear and doubt single latents, one card each.") for _, name in found]


def index_body(books, exercises, documents, extras, profile: str, figures: Path) -> str:
    """The first page: what this is, what came out, and where to go on."""
    import pandas as pd

    parts = ["<h1>Do sparse autoencoders make audio models explainable?</h1>",
             '<p class="lead">A companion to Mariotte et al. 2025: notebooks that rerun, check, '
             "sound out and teach the analysis of singing techniques in audio encoders, beside a "
             "dictionary that has learned nothing.</p>"]
    hero = next((name for name in ("overview", "fig6_null_figure")
                 if (figures / f"{name}.png").is_file()), None)
    if hero:
        parts.append(f'<p class="figure"><a href="gallery.html"><img src="figures/{profile}/{hero}'
                     f'.png" alt="{html.escape(_alt(hero))}"></a></p>')
    claims = figures / "claims.csv"
    if claims.is_file():
        rows = "".join(f"<li><b>{_asked(name)}</b> {_bold(text)}</li>"
                       for name, text in pd.read_csv(claims)[["name", "text"]].itertuples(
                           index=False))
        parts.append(f'<h2>What came out</h2><ul class="claims">{rows}</ul>')
        if profile in ("smoke", "demo", "demo_full"):
            parts.append("<p>Measured on synthetic singers with a small encoder; nothing here was "
                         "measured on recordings or on the paper's four encoders.</p>")
    parts.append('<h2 id="notebooks">In reading order</h2>' + cards(
        [(book.page, book.title, book.question) for book in books]))
    more = list(extras)
    more += [("report_card.html", "Report card", "Every published value beside ours.")
             ] * ("report_card.html" in documents)
    more += [("gallery.html", "Figures", "Every figure with its text and its data."),
             ("data.html", "Data", "What is synthetic, what is real, and whose it is.")]
    more = [entry for entry in more if entry[0] in documents or entry in extras]
    parts.append("<h2>Look and listen</h2>" + cards(more))
    if exercises:
        guide = [("notebooks/exercises/index.html", "A workshop of three hours",
                  "Minutes, questions and expected answers.")]
        guide = guide if "notebooks/exercises/index.html" in documents else []
        parts.append("<h2>Exercises, 15 minutes each</h2>" + cards(
            [(book.page, book.title, book.question) for book in exercises] + guide))
    return "\n".join(parts)


def cards(entries: Sequence[tuple[str, str, str]]) -> str:
    """A list of links with a title and a sentence."""
    return '<ul class="cards">' + "".join(
        f'<li><a href="{page}"><strong>{_bold(title)}</strong><span>{_bold(text)}</span></a></li>'
        for page, title, text in entries) + "</ul>"


def write_page(target: Path, page: str, title: str, kind: str, body: str, source: Path,
               pages: dict[Path, str], around: tuple[Book | None, Book | None] = (None, None)
               ) -> None:
    """One page in the house frame, its links turned to pages of the site.

    Raises
    ------
    ValueError
        The page would name a folder of this machine.
    """
    up = "../" * page.count("/")
    if page != "index.html":
        body = relink(body, page, source, pages, target)
    body = body.replace("<table", '<div class="scroll"><table').replace("</table>",
                                                                        "</table></div>")
    heads = re.findall(r'<h2 id="([^"]+)">(.*?)(?:<a class="anchor|</h2>)', body)
    contents = "<ol>" + "".join(f'<li><a href="#{anchor}">{name}</a></li>'
                                for anchor, name in heads) + "</ol>" if heads else ""
    before, after = (_turn(page, book, mark) for book, mark in zip(around, "←→", strict=True))
    turn = f'<nav class="turn" aria-label="Next">{before}{after}</nav>' if any(around) else ""
    text = (FILES / "page.html").read_text(encoding="utf-8")
    for name, value in {"title": html.escape(_plain(title)), "kind": kind, "up": up,
                        "contents": contents, "turn": turn, "foot": FOOT, "body": body}.items():
        text = text.replace("{{" + name + "}}", value)
    if str(ROOT) in text or str(Path.home()) + "/" in text:
        raise ValueError(f"{page} would name a folder of this machine: run `make publish` again")
    (target / page).parent.mkdir(parents=True, exist_ok=True)
    (target / page).write_text(text, encoding="utf-8")


def relink(body: str, page: str, source: Path, pages: dict[Path, str], target: Path) -> str:
    """Point links and pictures of a document to their place in the site.

    A link to a file of the repository that the site does not hold becomes its text.
    """
    def place(address: str) -> str | None:
        if address.startswith(OUTSIDE):
            return address
        path, _, anchor = address.partition("#")
        file = (source.parent / path).resolve()
        inside = pages.get(file)
        if inside is None and file.is_relative_to(ROOT):
            same = file.relative_to(ROOT).as_posix()
            inside = same if (target / same).is_file() else None
        return _between(page, inside) + (f"#{anchor}" if anchor else "") if inside else None

    def picture(match: re.Match[str]) -> str:
        return f'{match[1]}{place(match[2]) or match[2]}"'

    def link(match: re.Match[str]) -> str:
        new = place(html.unescape(match[2]))
        before, _, after, text = match.groups()
        return f'<a{before}href="{html.escape(new)}"{after}>{text}</a>' if new else text

    body = re.sub(r'(<img\b[^>]*?\bsrc=")(?!data:)([^"]+)"', picture, body)
    return re.sub(r'<a\b([^>]*?)href="([^"]*)"([^>]*)>(.*?)</a>', link, body, flags=re.DOTALL)


def _turn(page: str, book: Book | None, mark: str) -> str:
    if book is None:
        return "<span></span>"
    text = f"{mark} {book.title}" if mark == "←" else f"{book.title} {mark}"
    return f'<a href="{_between(page, book.page)}">{html.escape(_plain(text))}</a>'


def _between(page: str, other: str) -> str:
    """Relative address of one page of the site on another."""
    here = PurePosixPath(page).parent.parts
    there = PurePosixPath(other).parts
    common = 0
    while common < min(len(here), len(there) - 1) and here[common] == there[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + list(there[common:]))


def _asked(name: str) -> str:
    """The question that a sentence of ``claims.csv`` answers, and for which encoder.

    Examples
    --------
    >>> _asked("claim2b"), _asked("claim1_mert")
    ('Claim 2b: do latents show what the model encodes?', 'Claim 1, mert: is the information kept?')
    """
    claim, _, encoder = name.partition("_")
    number = claim.removeprefix("claim") + (f", {encoder}" if encoder else "")
    return f"Claim {number}: {ASKED[claim]}" if claim in ASKED else f"Claim {number}."


def _bold(text: str) -> str:
    text = html.escape(text, quote=False)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", re.sub(
        r"(?<!\*)\*([^*]+)\*(?!\*)", r"<i>\1</i>", text)))


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    return re.sub(r"[*`]", "", text)


def _alt(figure: str) -> str:
    gallery = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"!\[([^\]]*)\]\([^)]*{figure}\.png\)", gallery)
    return found[1] if found else figure.replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
