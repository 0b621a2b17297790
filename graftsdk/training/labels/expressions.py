"""Questions to a fully annotated set, as in `upperBodySuit or lowerBodySuits`: and, or, not, parentheses, names."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from graftsdk.errors import InputError
from graftsdk.text import listed
from graftsdk.training.labels.annotated import YES

__all__ = ["evaluate"]

MAX_LENGTH = 2000


def evaluate(text: str, attributes: Sequence[str], values: npt.NDArray[np.int8], where: str) -> npt.NDArray[np.int8]:
    """int8[N], NO, UNKNOWN or YES: an expression's value for each image, by Kleene's logic of three values.

    Nothing is executed: the text is parsed, and anything but `and`, `or`, `not` and names of attributes is refused.
    A name that is no Python identifier stands in quotes, `"Age18-60" or AgeOver60`; alone it needs none.

    Args:
        text: the expression.
        attributes: A names.
        values: int8[N, A].
        where: what the expression belongs to, for messages.

    Raises:
        InputError: no expression of that kind, too long, or a name that is no attribute.
    """
    if text.strip() in attributes:
        return values[:, attributes.index(text.strip())]
    if len(text) > MAX_LENGTH:
        raise InputError(f"{where}: expected an expression of at most {MAX_LENGTH} characters, found {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body, attributes, values, where)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where}: expected an expression of attributes with and, or, not and parentheses, found {text!r:.120}"
        ) from error


def _value(node: ast.expr, attributes: Sequence[str], values: npt.NDArray[np.int8], where: str) -> npt.NDArray[np.int8]:
    if isinstance(node, ast.BoolOp):
        join = np.minimum if isinstance(node.op, ast.And) else np.maximum
        found: npt.NDArray[np.int8] = join.reduce([_value(part, attributes, values, where) for part in node.values])
        return found
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return (YES - _value(node.operand, attributes, values, where)).astype(np.int8)
    if isinstance(node, ast.Name):
        name = node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        name = node.value
    else:
        raise InputError(
            f"{where}: expected attributes, and, or, not and parentheses, found {ast.unparse(node)!r:.80}; a name "
            f"with other signs than letters, digits and _ stands in quotes"
        )
    if name not in attributes:
        near = difflib.get_close_matches(name, attributes, 3, 0.6) or sorted(attributes)[:5]
        raise InputError(f"{where}: expected an attribute of the set, found {name!r}; there are {listed(near)} ...")
    return values[:, attributes.index(name)]
