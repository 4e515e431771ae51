import gc

import pytest
import torch
import transformers  # noqa: F401  (before the freeze below)


@pytest.fixture(autouse=True, scope="session")
def _what_is_imported_is_never_looked_through_again():
    """Each stage collects garbage when it ends; without this it would go through all of torch and transformers each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)
