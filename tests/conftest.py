import gc

import pytest
import torch
import transformers  # noqa: F401  (before the freeze below)

import tests.helpers.type_checks  # noqa: F401  (before anything of fusion, which it checks; see pyproject.toml)

LONGEST = [
    *(
        "training/test_spread.py",
        "objectives/test_objective_contract.py",
        "report/test_html_page.py",
        "report/test_browser.py",
        "config/test_recipes.py",
    ),
    *(
        "runtime/test_torchrun.py",
        "grading/test_sandbox.py",
        "test_wheel.py",
        "training/test_loss.py",
        "faults/test_faults.py",
        "faults/test_kills.py",
    ),
    *(
        "merging/files/test_resume.py",
        "cli/test_cli.py",
        "training/test_hidden.py",
        "test_pipeline.py",
    ),
]


def pytest_collection_modifyitems(items):
    """Begin with the longest files: each runs in one process, and none shall be left when the others are done."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get("/".join(item.path.parts[item.path.parts.index("tests") + 1 :]), len(order)))


@pytest.fixture(autouse=True, scope="module")
def _what_is_imported_is_never_looked_through_again():
    """Each stage and trainer collects garbage when it ends; without this it would go through all of torch each time.

    For each file, since much of transformers is imported when it is first used.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)
