"""One name, one thing: no class name is used twice in the three packages."""

import ast
from collections import defaultdict

from tests.test_arrows import MODULES


def test_no_class_name_is_used_twice():
    places = defaultdict(list)
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{module}:{node.lineno}")
    assert len(places) > 200
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
