import pytest

from tests.helpers.families import save_tiny_llama


@pytest.fixture
def family(tmp_path):
    """A base with tokenizer files, and three models grown from it."""
    base = save_tiny_llama(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "base" / name).write_text(f"the base's {name}")
    (tmp_path / "base" / "additional_chat_templates").mkdir()
    (tmp_path / "base" / "additional_chat_templates" / "tools.jinja").write_text("tools")
    (tmp_path / "base" / "training_args.bin").write_text("not for the result")
    for number in (1, 2, 3):
        save_tiny_llama(tmp_path / f"m{number}", seed=number, like=base)
    return tmp_path / "base", [tmp_path / f"m{number}" for number in (1, 2, 3)]
