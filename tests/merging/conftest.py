import shutil

import pytest

from tests.helpers.families import save_tiny_llama


@pytest.fixture(scope="session")
def grown(tmp_path_factory):
    """A folder with a base, its tokenizer files, and three models grown from it; no test may change it."""
    folder = tmp_path_factory.mktemp("family")
    base = save_tiny_llama(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / "base" / name).write_text("{}" if name == "tokenizer_config.json" else f"the base's {name}")
    (folder / "base" / "additional_chat_templates").mkdir()
    (folder / "base" / "additional_chat_templates" / "tools.jinja").write_text("tools")
    (folder / "base" / "training_args.bin").write_text("not for the result")
    for number in (1, 2, 3):
        save_tiny_llama(folder / f"m{number}", seed=number, like=base)
    return folder


@pytest.fixture
def family(grown, tmp_path):
    """A copy of it that a test may change: the base, and the models."""
    shutil.copytree(grown, tmp_path, dirs_exist_ok=True)
    return tmp_path / "base", [tmp_path / f"m{number}" for number in (1, 2, 3)]
