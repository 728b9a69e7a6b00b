"""Finds the sentences of the error family for the message catalogues (see babel.cfg).

An error's class docstring is the sentence that people read and `hint` says what to do next, so
neither stands in a gettext call that Babel would find by itself.
"""

import ast
from collections.abc import Iterator
from typing import IO, Any


def extract_errors(
    fileobj: IO[bytes], keywords: Any, comment_tags: Any, options: Any
) -> Iterator[tuple[int, None, str, list[str]]]:
    """Babel's extractor protocol: line, function, message, comments."""
    for node in ast.walk(ast.parse(fileobj.read())):
        if not isinstance(node, ast.ClassDef) or not node.bases:
            continue
        sentence = ast.get_docstring(node)
        if sentence:
            yield node.lineno, None, " ".join(sentence.split()), []
        for statement in node.body:
            match statement:
                case ast.Assign(
                    targets=[ast.Name(id="hint")], value=ast.Constant(value=str(hint))
                ) if hint:
                    yield statement.lineno, None, hint, []
