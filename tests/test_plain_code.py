"""The text of code that keys are made of: no layout and no version of Python changes it."""

import ast
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saeutils import keys, plain_code
from saeutils.plain_code import parse, plain_text
from saeutils.profiles import ROOT

# One of each form whose tree, spelling or printing has differed between versions of Python.
ODD = '''
"""A docstring that counts for nothing."""
from __future__ import annotations
import a.b as c, d  # a comment
X: dict[str, int | None] = {**d, "ä\\u0378\\U0001fae8": 1_000, b"\\x00": 1e-7, 'q"': 1j, 0: ...}
big, nan, neg = 10**30, float("nan"), -0.0
@c.deco(1, *X, key=None, **X)
class K(c.Base, metaclass=type):
    def f(self, p, /, q=2, *args: int, r, s=None, **kw) -> str:
        "one more"
        return f"{p!r:>{q}}" f'{q = } {{}}' "tail" + f"{r:}" + f"""{s
        :.2f}""" + rf"\\d{p:%Y-%m}" + f"{'a' 'b'}"
    async def g(self):
        """only this"""
    async def h(self, x=(yield_ := 3)):
        async with c as d, d as (e, *g): return [y async for y in x if await y]
        global Z; del x[0:1, ::2, ...]; nonlocal_ = lambda *a, b=1, **k: (a, b, k)
try:
    assert not (1 < 2 <= 3 != 4) if X else True, "words"
except* (ValueError, OSError) as group:
    raise RuntimeError from group
else:
    for i, in [(1,)]: continue
    else: pass
finally:
    while (n := 0): break
match X:
    case {"k": [1, *_], **rest} | K(f=str() as z) if rest: pass
    case None | True | -1.5 | "s": x @= ~1 ** +2 // 3 % 4 << 5 >> 6 & 7 ^ 8 | 9 and (not 1 or 2)
    case _: print(*X, sep="", **{}); yield_ = {i for i in X}, {i: 1 for i in X}, (i for i in X)
'''
ANSWER = "0ad20bec88a8149533cb262e03f1088faabadb8a8c7129b3991311629742e538"
CODE_DIGEST = "2e2ea4de27896855e9821202b540b766ebc5926b7a22cb017f6acc019dde0507"


def sha(text):
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def test_the_text_is_known_whatever_python_runs_this():
    """A pinned answer: a version of Python that writes trees otherwise is seen by its own tests."""
    assert sha(plain_text(parse(ODD, "odd"))) == ANSWER


def test_digests_of_a_project_are_known_whatever_python_runs_this(tmp_path, monkeypatch):
    """The same one floor up: notebook, rooms and imports of a tiny project."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "saeutils").mkdir()
    (tmp_path / "saeutils" / "sae.py").write_text("from saeutils import files, scores\nY = f'{1}'")
    (tmp_path / "saeutils" / "scores.py").write_text(ODD, encoding="utf-8")
    (tmp_path / "saeutils" / "files.py").write_text("no_part = 'of a key'")
    (tmp_path / "notebooks" / "03_sae_training.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "metadata": {}, "source": ["from saeutils.sae import Y"]'
        '}, {"cell_type": "markdown", "metadata": {}, "source": ["words"]}]}')
    monkeypatch.setattr(keys, "ROOT", tmp_path)
    caches = (keys.code_digests, keys._room_tree, keys._room_text, keys._rooms_below)
    for cache in caches:
        cache.cache_clear()
    try:
        found = keys.code_digests("03")[0]
    finally:
        for cache in caches:
            cache.cache_clear()
    assert found == CODE_DIGEST


def texts():
    """Every room and every code cell of the chain, by name."""
    found = {path.name: path.read_text(encoding="utf-8")
             for path in sorted((ROOT / "saeutils").glob("*.py"))}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found |= {f"{path.name} {i}": "".join(cell["source"]) for i, cell in enumerate(cells)
                  if cell["cell_type"] == "code"}
    return found


def others():
    """Interpreters of other supported versions on this machine, those of pyenv included."""
    names = [f"3.{minor}" for minor in (11, 12, 13) if minor != sys.version_info[1]]
    for name in names:
        kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{name}.*/bin/python"))
        found = [shutil.which(f"python{name}"), *map(str, kept)]
        works = [python for python in filter(None, found) if subprocess.run(
            [python, "-c", f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != {name!r})"],
            capture_output=True).returncode == 0]
        yield name, works[0] if works else None


@pytest.mark.parametrize("name, python", list(others()), ids=["one other", "another"])
def test_another_python_writes_the_same_texts(name, python, tmp_path):
    """Every room and code cell of the chain, under an interpreter without packages."""
    if not python:
        pytest.skip(f"no Python {name} here")
    code = ("import sys, json, hashlib; sys.path.insert(0, sys.argv[1]); import plain_code as p;"
            "texts = json.loads(sys.stdin.buffer.read());"
            "print(json.dumps({n: hashlib.sha256(p.plain_text(p.parse(t, n)).encode()).hexdigest()"
            " for n, t in texts.items()}))")
    shutil.copyfile(plain_code.__file__, tmp_path / "plain_code.py")
    sources = texts() | {"odd": ODD}
    done = subprocess.run([python, "-I", "-c", code, str(tmp_path)], check=True,
                          input=json.dumps(sources).encode(), capture_output=True)
    ours = {name: sha(plain_text(parse(text, name))) for name, text in sources.items()}
    assert len(ours) > 200 and json.loads(done.stdout) == ours


def test_layout_counts_for_nothing_and_every_value_counts():
    for name, text in texts().items():
        tree = parse(text, name)
        again = ast.unparse(tree)  # other quotes, brackets and line breaks, no comments
        assert plain_text(parse(again, name)) == plain_text(tree), name
    first = plain_text(parse("f(a, b=[1, 'x', None, True])", ""))
    for other in ("f(a, b=[1, 'x', None, 1])", "f(a, b=[1, 'x', True])",
                  "f(a, c=[1, 'x', None, True])", "f(a, b=[1.0, 'x', None, True])",
                  "f(a, b=[1, b'x', None, True])", "f(a, b=(1, 'x', None, True))",
                  "f(a, b=[1, 'y', None, True])"):
        assert plain_text(parse(other, "")) != first, other


@pytest.mark.parametrize("one, other", [
    ("f'a{x}' 'b'", "f'a{x}b'"), ("'''d'''", "pass"), ("%matplotlib inline", "pass"),
    ("def f():\n    'd'", "def f(): pass"), ("x = 1 # c", "x = (\n1\n)"), ("'a' 'b'", "'ab'"),
])
def test_equal_code_has_one_text(one, other):
    assert plain_text(parse(one, "")) == plain_text(parse(other, ""))


@pytest.mark.parametrize("one, other", [
    ("f'{x}'", "'{x}'"), ("f'{x!r}'", "f'{x}'"), ("f'{x:>2}'", "f'{x:>3}'"), ("-0.0", "0.0"),
    ("{**a}", "{None: a}"), ("x[1:]", "x[:1]"), ("def f(a, /): pass", "def f(a): pass"),
    ("x = 'd'", "x = 'e'"), ("'d'; 'e'", "'d'"),
])
def test_other_code_has_another_text(one, other):
    assert plain_text(parse(one, "")) != plain_text(parse(other, ""))


def test_a_syntax_error_names_the_place():
    with pytest.raises(ValueError, match="cell 3 is not valid Python"):
        parse("def", "cell 3")
