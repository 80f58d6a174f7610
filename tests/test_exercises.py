"""Each exercise: passes with a right answer, fails as meant with its stub, knows its mistakes."""

import ast
import re
import textwrap

import nbformat
import numpy as np
import pytest

from saeutils.exercise_judge import NotYet, judge, same
from saeutils.profiles import ROOT

FOLDER = ROOT / "notebooks" / "exercises"
BOOKS = {path.stem[:2]: path for path in sorted(FOLDER.glob("E*.ipynb"))}
NUMPY = "import numpy as np\n"

RIGHT = {
    "E1": """
        def top_k(pre_NF, k):
            positive_NF = np.maximum(pre_NF, 0)
            codes_NF = np.zeros_like(positive_NF)
            best_NK = np.argsort(-positive_NF, axis=1)[:, :k]
            values_NK = np.take_along_axis(positive_NF, best_NK, axis=1)
            np.put_along_axis(codes_NF, best_NK, values_NK, axis=1)
            return codes_NF""",
    "E2": """
        def split(singers, share, seed):
            names = np.unique(singers)
            chosen = np.random.default_rng(seed).permutation(names)[: round(share * len(names))]
            return np.isin(singers, chosen)""",
    "E3": """
        def my_completeness(weights_AF):
            size = np.abs(weights_AF)
            total = size.sum(axis=1, keepdims=True)
            share = size / np.where(total > 0, total, np.nan)
            logs = np.log(np.where(share > 0, share, 1.0))
            return 1 + (share * logs).sum(axis=1) / np.log(weights_AF.shape[1])""",
    "E4": """
        def dead_share(codes_NF):
            return 1 - (codes_NF > 0).any(axis=0).mean()""",
    "E5": """
        def match(similarity_FG):
            from scipy.optimize import linear_sum_assignment
            return linear_sum_assignment(similarity_FG, maximize=True)[1]""",
    "E6": """
        def move(row, factor, step, spread):
            if factor == "vibrato_rate_hz" and row["vibrato_extent_st"] < 0.3:
                return None
            shift = step * spread["sd"]
            value = row[factor] * np.exp(shift) if spread["log"] else row[factor] + shift
            return {**row, factor: value}""",
}
STUBS = {"E1": "nothing to check so far", "E2": "draw singers, not clips",
         "E3": "nothing to check so far", "E4": "nothing to check so far",
         "E5": "claim the same partner", "E6": "you took another clip"}
WRONG = {  # each likely mistake, as a reader would write it, and words of its name
    "E1": [
        ("largest by absolute value: ReLU first", """
            def top_k(pre_NF, k):
                best = np.argsort(-np.abs(pre_NF), axis=1)[:, :k]
                out = np.zeros_like(pre_NF)
                np.put_along_axis(out, best, np.take_along_axis(pre_NF, best, 1), 1)
                return out"""),
        ("cut the negative ones away afterwards", """
            def top_k(pre_NF, k):
                best = np.argsort(-np.abs(pre_NF), axis=1)[:, :k]
                out = np.zeros_like(pre_NF)
                np.put_along_axis(out, best, np.take_along_axis(pre_NF, best, 1), 1)
                return np.maximum(out, 0)"""),
        ("a negative strength is left", """
            def top_k(pre_NF, k):
                best = np.argsort(-pre_NF, axis=1)[:, :k]
                out = np.zeros_like(pre_NF)
                np.put_along_axis(out, best, np.take_along_axis(pre_NF, best, 1), 1)
                return out"""),
        ("ReLU alone", "def top_k(pre_NF, k): return np.maximum(pre_NF, 0)"),
        ("of each column", """
            def top_k(pre_NF, k):
                x = np.maximum(pre_NF, 0)
                return np.where(x >= np.sort(x, axis=0)[-k], x, 0)"""),
        ("the k values alone", """
            def top_k(pre_NF, k): return np.sort(np.maximum(pre_NF, 0), axis=1)[:, ::-1][:, :k]"""),
        ("holds their strength", """
            def top_k(pre_NF, k):
                x = np.maximum(pre_NF, 0)
                return ((x >= np.sort(x, axis=1)[:, [-k]]) & (x > 0)).astype(int)"""),
        ("one latent too many", """
            def top_k(pre_NF, k):
                x = np.maximum(pre_NF, 0)
                return np.where(x >= np.sort(x, axis=1)[:, [-k - 1]], x, 0)"""),
        ("one latent too few", """
            def top_k(pre_NF, k):
                x = np.maximum(pre_NF, 0)
                return np.where(x > np.sort(x, axis=1)[:, [-k]], x, 0)"""),
        ("lets ties in", """
            def top_k(pre_NF, k):
                x = np.maximum(pre_NF, 0)
                return np.where(x >= np.sort(x, axis=1)[:, [-k]], x, 0)"""),
        ("work on a copy", """
            def top_k(pre_NF, k):
                pre_NF[pre_NF < 0] = 0
                pre_NF[pre_NF < np.sort(pre_NF, axis=1)[:, [-k]]] = 0
                return pre_NF"""),
        ("does it end with `return", "def top_k(pre_NF, k): np.maximum(pre_NF, 0)"),
        ("stops with IndexError", "def top_k(pre_NF, k): return pre_NF[:, 99]"),
    ],
    "E2": [
        ("draw singers, not clips", """
            def split(singers, share, seed):
                order = np.random.default_rng(seed).permutation(len(singers))
                return np.isin(np.arange(len(singers)), order[: round(share * len(singers))])"""),
        ("cut the list of clips at one place", """
            def split(singers, share, seed):
                return np.arange(len(singers)) < share * len(singers) + 3"""),
        ("you marked the training side", """
            def split(singers, share, seed):
                names = np.random.default_rng(seed).permutation(np.unique(singers))
                return ~np.isin(singers, names[: round(share * len(names))])"""),
        ("same seed gave two different", """
            def split(singers, share, seed):
                names = np.random.permutation(np.unique(singers))
                return np.isin(singers, names[: round(share * len(names))])"""),
        ("the seed is not used", """
            def split(singers, share, seed):
                names = np.unique(singers)
                return np.isin(singers, names[: round(share * len(names))])"""),
        ("a share of 0.25 is 3", """
            def split(singers, share, seed):
                names = np.unique(singers)
                return np.isin(singers, np.random.default_rng(seed).choice(names))"""),
        ("one True or False for each", """
            def split(singers, share, seed):
                return np.random.default_rng(seed).permutation(np.unique(singers))[:3]"""),
        ("side is empty", """
            def split(singers, share, seed): return np.zeros(len(singers), bool)"""),
    ],
    "E3": [
        ("down the columns", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(0)
                return 1 + (p * np.log(np.where(p > 0, p, 1))).sum(0) / np.log(len(w))"""),
        ("completeness is 1 minus it", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(1, keepdims=True)
                return -(p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(w.shape[1])"""),
        ("that is the entropy itself", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(1, keepdims=True)
                return -(p * np.log(np.where(p > 0, p, 1))).sum(1)"""),
        ("the entropy is in bits", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(1, keepdims=True)
                return 1 + (p * np.log2(np.where(p > 0, p, 1))).sum(1) / np.log(w.shape[1])"""),
        ("do not sum to 1", """
            def my_completeness(w):
                p = np.abs(w)
                return 1 + (p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(w.shape[1])"""),
        ("0 times log 0", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(1, keepdims=True)
                return 1 + (p * np.log(p)).sum(1) / np.log(w.shape[1])"""),
        ("negative weights were dropped", """
            def my_completeness(w):
                p = np.maximum(w, 0) / np.maximum(w, 0).sum(1, keepdims=True)
                return 1 + (p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(w.shape[1])"""),
        ("kept their signs", """
            def my_completeness(w):
                p = w / w.sum(1, keepdims=True)
                return 1 + (p * np.log(p)).sum(1) / np.log(w.shape[1])"""),
        ("of the codes in use", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(1, keepdims=True)
                used = np.maximum((w != 0).sum(1), 2)
                return 1 + (p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(used)"""),
        ("scores 1: the emptiest map", """
            def my_completeness(w):
                p = np.abs(w) / np.maximum(np.abs(w).sum(1, keepdims=True), 1e-12)
                return 1 + (p * np.log(p + 1e-12)).sum(1) / np.log(w.shape[1])"""),
        ("scores 0: nothing was measured", """
            def my_completeness(w):
                p = np.abs(w) / np.abs(w).sum(1, keepdims=True)
                c = 1 + (p * np.log(np.where(p > 0, p, 1))).sum(1) / np.log(w.shape[1])
                return np.nan_to_num(c)"""),
    ],
    "E4": [
        ("that is sparsity", "def dead_share(c): return np.mean(c == 0)"),
        ("along the rows", "def dead_share(c): return (c == 0).all(axis=1).mean()"),
        ("how many are dead", "def dead_share(c): return (c.sum(axis=0) == 0).sum()"),
        ("the share that is alive", "def dead_share(c): return (c > 0).any(axis=0).mean()"),
        ("silent somewhere", "def dead_share(c): return (c == 0).any(axis=0).mean()"),
        ("fires weakly", "def dead_share(c): return (c.mean(axis=0) < 0.01).mean()"),
        ("on a single clip", "def dead_share(c): return ((c > 0).mean(axis=0) < 0.05).mean()"),
    ],
    "E5": [
        ("claim the same partner", "def match(s): return s.argmax(axis=1)"),
        ("as small as it can be", """
            def match(s):
                from scipy.optimize import linear_sum_assignment
                return linear_sum_assignment(s)[1]"""),
        ("greedy choice", """
            def match(s):
                left, partner = s.copy(), np.zeros(len(s), int)
                for _ in s:
                    i, j = np.unravel_index(left.argmax(), left.shape)
                    partner[i] = j
                    left[i, :] = left[:, j] = -9
                return partner"""),
        ("each latent in turn", """
            def match(s):
                partner = []
                for row in s:
                    partner.append(max(set(range(len(s))) - set(partner), key=lambda j: row[j]))
                return partner"""),
        ("opposite ways", """
            def match(s):
                from scipy.optimize import linear_sum_assignment
                return linear_sum_assignment(abs(s), maximize=True)[1]"""),
        ("rows are the first", """
            def match(s):
                from scipy.optimize import linear_sum_assignment
                return linear_sum_assignment(s.T, maximize=True)[1]"""),
        ("position of the partner is wanted", """
            def match(s):
                from scipy.optimize import linear_sum_assignment
                rows, columns = linear_sum_assignment(s, maximize=True)
                return s[rows, columns]"""),
    ],
    "E6": [
        ("you took another clip", "def move(row, factor, step, spread): return vibrato"),
        ("changed the base clip itself", """
            def move(row, factor, step, spread):
                row[factor] += step * spread["sd"]
                return row"""),
        ("noise was drawn anew", """
            def move(row, factor, step, spread):
                return {**row, factor: row[factor] + step * spread["sd"], "noise_key": "new"}"""),
        ("you moved level_db: one cause", """
            def move(row, factor, step, spread):
                return {**row, factor: row[factor] + step * spread["sd"], "level_db": 3.0}"""),
        ("nothing moved", "def move(row, factor, step, spread): return {**row}"),
        ("by half a unit", """
            def move(row, factor, step, spread): return {**row, factor: row[factor] + step}"""),
        ("logarithmic scale", """
            def move(row, factor, step, spread):
                return {**row, factor: row[factor] + step * spread["sd"]}"""),
        ("a vibrato that is not there", """
            def move(row, factor, step, spread):
                shift = step * spread["sd"]
                value = row[factor] * np.exp(shift) if spread["log"] else row[factor] + shift
                return {**row, factor: value}"""),
        ("return a whole row", "def move(row, factor, step, spread): return {factor: step}"),
    ],
}


def book(name):
    return nbformat.read(BOOKS[name], as_version=4)


def tagged(notebook, tag):
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def run(name, answer=None, upto_check=False):
    """Run an exercise's code cells with the stub replaced; returns what the checks said."""
    space, said = {"__name__": "exercise"}, []
    for cell in book(name).cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        source = textwrap.dedent(answer) if answer and "stub" in tags else cell.source
        tree = ast.parse(source)
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            tree.body[-1] = ast.parse("_ = 0").body[0]
            tree.body[-1].value = last.value
        exec(compile(ast.fix_missing_locations(tree), f"{name}", "exec"), space)
        if "check" in tags:
            said.append(space["_"].data)
            if upto_check:
                break
    return said


@pytest.mark.parametrize("name", list(RIGHT))
def test_right_answer_runs_to_the_end(name, monkeypatch):
    said = run(name, RIGHT[name])
    assert said and said[0].startswith(f"{name} passed")


@pytest.mark.parametrize("name", list(STUBS))
def test_stub_fails_with_the_intended_words(name):
    with pytest.raises(NotYet, match=STUBS[name]):
        run(name, upto_check=True)


@pytest.fixture(scope="module")
def checked():
    """Check cells with everything that stands before them, run once for each exercise."""
    spaces = {}
    for name in BOOKS:
        space = {"__name__": "exercise"}
        for cell in book(name).cells:
            tags = cell.metadata.get("tags", [])
            if "check" in tags:
                break
            if cell.cell_type == "code" and "stub" not in tags:
                exec(cell.source, space)
        spaces[name] = space, tagged(book(name), "check")[0].source
    return spaces


@pytest.mark.parametrize("name, words, answer", [
    pytest.param(name, words, answer, id=f"{name}: {words}")
    for name, mistakes in WRONG.items() for words, answer in mistakes])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_each_likely_mistake_is_called_by_its_name(checked, name, words, answer):
    space, check = checked[name]
    space = dict(space)
    exec(NUMPY + textwrap.dedent(answer), space)
    with pytest.raises(NotYet, match=re.escape(words)):
        exec(check, space)


@pytest.mark.parametrize("name", list(RIGHT))
def test_an_unknown_mistake_is_still_refused(checked, name):
    space, check = checked[name]
    space = dict(space)
    function = re.search(r"def (\w+)", RIGHT[name])[1]
    exec(f"def {function}(*given): return 0.123", space)
    with pytest.raises(NotYet):
        exec(check, space)


def test_judge_by_hand():
    cases = [("one", (np.array([1.0, -2.0]),))]
    judge(np.abs, np.abs, cases, {})
    with pytest.raises(NotYet, match="mind the sign"):
        judge(lambda x: x, np.abs, cases, {"mind the sign": lambda x: x})
    with pytest.raises(NotYet, match="on one you get"):
        judge(lambda x: 2 * x, np.abs, cases, {"mind the sign": lambda x: x})
    with pytest.raises(NotYet, match="returns a dict"):
        judge(lambda x: {}, np.abs, cases, {})


@pytest.mark.parametrize("size", range(4))
def test_same_is_blind_to_nothing_but_rounding(size):
    values = np.random.default_rng(size).normal(size=(size, 3))
    assert same(values, values + 1e-12) and same(values * np.nan, values * np.nan)
    assert not same(values, values[:, :2])
    assert not size or not same(values, values + 0.01)


def test_a_notebook_shows_the_sentence_and_no_traceback():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.run_cell("from saeutils.exercise_judge import NotYet\nraise NotYet('ReLU first')")
    assert shown == ["Not yet: ReLU first"]


def test_six_exercises_each_with_one_stub_one_check_and_the_answer():
    assert list(BOOKS) == list(RIGHT) == list(STUBS) == list(WRONG)
    for name in BOOKS:
        notebook = book(name)
        nbformat.validate(notebook)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        text = [c for c in notebook.cells if c.cell_type == "markdown"]
        assert len(tagged(notebook, "stub")) == len(tagged(notebook, "check")) == 1
        assert len(text) >= len(code) - 3 and text[0].source.startswith(f"# {name} ·")
        assert "15 minutes" in text[0].source and "not show" in " ".join(text[-1].source.split())
        assert sum("<details>" in c.source for c in text) == 1
        assert any(c.source.startswith("## The answer in saeutils") or
                   "\n## The answer in saeutils" in c.source for c in text)
        for cell in code:
            assert len(cell.source.splitlines()) <= 20 and not cell.outputs
            assert max(map(len, cell.source.splitlines())) <= 100
        imports = [c for c in code if any(isinstance(n, ast.Import | ast.ImportFrom)
                                          for n in ast.walk(ast.parse(c.source)))]
        assert imports == code[:1]


def test_exercises_need_no_files_and_no_network():
    for name in BOOKS:
        source = "\n".join(c.source for c in book(name).cells if c.cell_type == "code")
        for word in ("open(", "open_stage", "read_", "http", "load_encoder", "to_csv", "save_"):
            assert word not in source, f"{name}: {word}"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RIGHT))
def test_in_a_kernel_within_a_minute(name):
    """A minute of processor time, which other work on the machine does not stretch."""
    from nbclient import NotebookClient

    notebook = book(name)
    tagged(notebook, "stub")[0].source = textwrap.dedent(RIGHT[name]).strip()
    notebook.cells.append(nbformat.v4.new_code_cell("import time; print(time.process_time())"))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert float(notebook.cells[-1].outputs[0]["text"]) < 60
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.get("name") == "stderr"]
