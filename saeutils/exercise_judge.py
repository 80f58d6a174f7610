"""How an exercise's answer is judged: compare, find the mistake with the same numbers, name it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class NotYet(Exception):
    """An answer that is not right yet. Notebooks show the sentence alone, without a traceback.

    Examples
    --------
    >>> NotYet("ReLU first")._render_traceback_()
    ['Not yet: ReLU first']
    """

    def _render_traceback_(self) -> list[str]:
        return [f"Not yet: {self}"]


def call(answer: Callable, arguments: Sequence[Any], may_be_none: bool = False) -> Any:
    """Result of the reader's function; its exceptions, and no result, become `NotYet`."""
    try:
        result = answer(*arguments)
    except NotImplementedError:
        raise NotYet("nothing to check so far: put your code in the place of "
                     "`raise NotImplementedError`") from None
    except Exception as error:
        raise NotYet(f"your function stops with {type(error).__name__}: {error}") from None
    if result is None and not may_be_none:
        raise NotYet("your function returns nothing: does it end with `return ...`?")
    return result


def same(first: Any, second: Any) -> bool:
    """Equal shape and, up to rounding, equal numbers; NaN equals NaN."""
    if np.shape(first) != np.shape(second):
        return False
    return bool(np.allclose(np.asarray(first, float), np.asarray(second, float), equal_nan=True))


def judge(answer: Callable, reference: Callable, cases, mistakes: dict[str, Callable]) -> None:
    """Compare on every case; at the first that differs, name the mistake with those numbers.

    Parameters
    ----------
    answer, reference
        The reader's function and the right one.
    cases
        Pairs of a label in words and the arguments.
    mistakes
        Name of each likely mistake, and a function that makes it.

    Raises
    ------
    NotYet
        The answer differs from the reference, fails, or changes its arguments.

    Examples
    --------
    >>> judge(abs, abs, [("minus one", (-1,))], {})
    >>> judge(lambda x: x, abs, [("minus one", (-1,))], {"keep the size": lambda x: x})
    Traceback (most recent call last):
    saeutils.exercise_judge.NotYet: keep the size
    """
    for label, arguments in cases:
        given = copy.deepcopy(arguments)
        with np.errstate(all="ignore"):
            got = call(answer, given)
        if not all(same(a, b) for a, b in zip(given, arguments, strict=True)):
            raise NotYet("you changed the table you were given: work on a copy")
        try:
            got = np.asarray(got, dtype=float)
        except (TypeError, ValueError):
            raise NotYet(f"your function returns a {type(got).__name__}: numbers are wanted"
                         ) from None
        wanted = reference(*copy.deepcopy(arguments))
        if same(got, wanted):
            continue
        for message, mistaken in mistakes.items():
            with np.errstate(all="ignore"):
                if same(got, mistaken(*copy.deepcopy(arguments))):
                    raise NotYet(message)
        if np.shape(got) != np.shape(wanted):
            raise NotYet(f"on {label} your result has shape {np.shape(got)}: expected "
                         f"{np.shape(wanted)}")
        raise NotYet(f"on {label} you get\n{np.round(got, 3)}\nand the answer is\n"
                     f"{np.round(np.asarray(wanted, float), 3)}")
