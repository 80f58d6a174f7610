"""What Python code says, as one text that no layout and no Python version changes.

Two texts with equal `plain_text` compute the same: comments, docstrings, line breaks, quotes and
needless brackets are gone. Python's own writers of syntax trees (`ast.unparse`, `ast.dump`) give
other texts from one version to the next, so the tree is written out here, field by field. Nothing
but the standard library is imported.
"""

from __future__ import annotations

import ast

WITH_DOCSTRING = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def parse(text: str, where: str) -> ast.Module:
    """Syntax tree of a file or cell; lines with a notebook's magic words become ``pass``.

    Raises
    ------
    ValueError
        If the text is not valid Python; names `where`.
    """
    magic_free = "\n".join(
        "pass" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines()
    )
    try:
        return ast.parse(magic_free)
    except SyntaxError as error:
        raise ValueError(f"{where} is not valid Python: {error}") from None


def plain_text(tree: ast.AST) -> str:
    """The tree as nested ``Name(field=...)``, in ASCII, without positions and empty fields.

    Empty fields go because newer versions add some (``type_params`` in 3.12); the parts of an
    f-string are joined as far as they are plain text, because versions cut them otherwise.

    Examples
    --------
    >>> plain_text(parse("x = (1 +\\n 2)  # three", "")) == plain_text(parse("x=1+2", ""))
    True
    >>> plain_text(parse("f('a')", ""))
    "Module(body=[Expr(value=Call(func=Name(id='f',ctx=Load()),args=[Constant(value='a')]))])"
    """
    if isinstance(tree, ast.Constant):
        return f"Constant(value={ascii(tree.value)})"
    fields = {name: getattr(tree, name, None) for name in tree._fields}
    if isinstance(tree, WITH_DOCSTRING) and _is_docstring(tree.body):
        fields["body"] = tree.body[1:] or [ast.Pass()]
    elif isinstance(tree, ast.JoinedStr):
        fields["values"] = _joined(tree.values)
    parts = [f"{name}={_value(value)}" for name, value in fields.items()
             if value is not None and value != []]
    return f"{type(tree).__name__}({','.join(parts)})"


def _value(value: object) -> str:
    if isinstance(value, ast.AST):
        return plain_text(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return ascii(value)


def _is_docstring(body: list[ast.stmt]) -> bool:
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str)


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    parts: list[ast.expr] = []
    for value in values:
        text = value.value if isinstance(value, ast.Constant) else None
        if isinstance(text, str) and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(parts[-1].value + text)
        elif text != "":
            parts.append(value)
    return parts
