"""Examples, rows and losses from Python, against what a run makes of the same models and texts."""

import gc
import inspect
import json
import re
from pathlib import Path

import pandas
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForCausalLM, AutoTokenizer

import fusion
from fusion import pipeline
from fusion.cache.store import manifest_checksum
from fusion.config.data import Data
from fusion.models.loading import tokenizer_identity
from fusion.objectives import GLD, CrossEntropy, ForwardKL
from fusion.stages.context import RunContext
from tests.helpers import runs, tiny

ROWS = [{"prompt": "how much is 12 + 30?", "response": "it is 42"}, {"prompt": "the quick", "response": "brown 🙂 fox"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    tiny.folder("llama", folder / "pivot")
    tiny.folder("gpt_neox", folder / "source")
    return folder


def test_rows_a_file_and_a_dataset_give_the_same_examples(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = fusion.read_examples(ROWS)
    assert fusion.read_examples(file) == fusion.read_examples(Dataset.from_list(ROWS)) == found
    assert fusion.read_examples(found) == found
    assert [example.response for example in found] == ["it is 42", "brown 🙂 fox"]


def test_a_table_of_pandas_gives_them_too_and_splits_and_columns_are_refused():
    assert fusion.read_examples(pandas.DataFrame(ROWS)) == fusion.read_examples(ROWS)
    splits = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS)})
    with pytest.raises(ValueError, match=r"splits train, test; give one of them, such as data\['train'\]"):
        fusion.read_examples(splits)
    with pytest.raises(ValueError, match=r"one mapping, of prompt, response, and no list of rows"):
        fusion.read_examples({"prompt": ["a"], "response": ["b"]})
    with pytest.raises(ValueError, match="max_length is no setting of a data set"):
        fusion.read_examples(ROWS, max_length=3)
    with pytest.raises(ValueError, match="split is for files and data sets on a hub"):
        fusion.read_examples(ROWS, split="train[:1]")


def test_what_a_table_lacks_is_nothing_and_rows_that_are_left_out_are_said(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("instruction,input,output\na,x,b\nc,,d\ne,f,\n")
    table = pandas.read_csv(tmp_path / "rows.csv")
    found = fusion.read_examples(table)
    assert [(example.prompt, example.response) for example in found] == [("a\n\nx", "b"), ("c", "d")]
    assert capsys.readouterr().out == "the rows: 1 row left out: no response (first: the rows, row 3)\n"
    assert [each.id for each in fusion.read_examples(tmp_path / "rows.csv")] == [each.id for each in found]
    assert "rows.csv: 1 row left out: no response" in capsys.readouterr().out


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="skip is 0 and limit 0; skip is at least 0, limit at least 1"):
        fusion.read_examples(ROWS, limit=0)
    with pytest.raises(ValueError, match="skip is -1"):
        fusion.read_examples(ROWS, skip=-1)


def test_rows_that_are_not_of_the_collator_are_refused_with_what_is(place):
    collator = fusion.FusionCollator(place / "pivot", ROWS, {}, {})
    with pytest.raises(
        ValueError, match=r"this one has columns input_ids, labels\. Give the trainer collator\.dataset\(\)"
    ):
        collator([{"input_ids": [1, 2], "labels": [1, 2]}])


def test_the_vocabulary_map_from_python_is_the_one_of_a_run():
    of_a_run = fusion.Config.model_fields["vocabulary_map"].default
    assert inspect.signature(fusion.vocabulary_map).parameters["kind"].default == of_a_run
    assert inspect.signature(fusion.FusionCollator).parameters["vocabulary_map_kind"].default == of_a_run


def test_long_texts_are_cut_where_a_run_and_trl_cut_them_and_it_is_said(place, capsys):
    config = place / "source/config.json"  # a model that reads them whole
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    rows = [ROWS[0], {"prompt": "count:", "response": "one two three " * 500}]
    cache = fusion.extract(place / "source", rows)
    assert (
        f"{place / 'source'}: 1 of 2 responses are longer than max_length = 1024 and were cut."
        in capsys.readouterr().out
    )
    given = (place / "pivot", rows, {"source": cache}, {"source": place / "source"})
    of_a_run = Data.model_fields["max_length"].default
    cut = fusion.FusionCollator(*given)
    assert f"{place / 'pivot'}: 1 of 2 responses are longer than max_length = {of_a_run}" in capsys.readouterr().out
    whole = fusion.FusionCollator(*given, max_length=None)
    assert "cut" not in capsys.readouterr().out
    assert [len(text.input_ids) == of_a_run for text in cut.texts] == [False, True]
    assert len(whole.texts[1].input_ids) > of_a_run


def test_the_loop_of_the_page_runs_as_it_stands(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i} + 1 =", "response": f" {i + 1}"} for i in range(10, 26)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = (Path(__file__).parents[2] / "docs/python.md").read_text()
    _, *snippets, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)  # all but a whole run and merging
    given = {
        "HuggingFaceTB/SmolLM2-135M-Instruct": str(place / "pivot"),
        "Qwen/Qwen2.5-Coder-0.5B-Instruct": str(place / "source"),
        'TrainingArguments("out",': 'TrainingArguments("out", max_steps=1, use_cpu=True, report_to=[],',
    }
    code = "\n".join(snippets)
    for name, value in given.items():
        assert name in code
        code = code.replace(name, value)
    after: dict = {}
    exec(compile(code, "docs/python.md", "exec"), after)
    assert set(after["output"].terms) == {"cross_entropy", "forward_kl/coder"}
    assert after["trainer"].state.global_step == 1
    assert len(after["mapped"]) == len(after["numbers"]) > 0


def test_rows_that_make_no_example_are_refused_with_their_columns():
    with pytest.raises(ValueError, match="the rows.*question"):
        fusion.read_examples([{"question": "a", "label": 3}])
    with pytest.raises(ValueError, match="limit beside examples: 2 of 2 are examples already"):
        fusion.read_examples(fusion.read_examples(ROWS), limit=1)


def test_a_model_read_from_python_gives_the_rows_that_a_run_caches(tmp_path):
    config = runs.config(tmp_path)
    context = RunContext(config)
    caches = pipeline.extract(context)
    source = config.sources[0]
    mine = fusion.extract(
        source.path, context.train_examples, top_k=config.extract.top_k, max_length=config.data.max_length
    )
    ids = [example.id for example in context.train_examples]
    theirs = caches[source.name].rows(ids)
    found = mine.rows(ids)
    assert len(found) > 10
    for name in ("prefix", "ids", "logprobs", "gold", "mean", "std"):
        assert torch.equal(getattr(found, name), getattr(theirs, name)), name


def test_a_cache_without_a_folder_goes_with_the_object(place):
    cache = fusion.extract(place / "source", ROWS, top_k=3)
    folder = cache.folder
    assert len(cache.rows(cache.ids)) > 0
    del cache
    gc.collect()
    assert not folder.exists()


def test_a_cache_in_a_folder_is_read_once(place, tmp_path, monkeypatch):
    first = fusion.extract(place / "source", ROWS, top_k=3, folder=tmp_path / "cache")
    monkeypatch.setattr("fusion.sources.Transformers.open", lambda *_: pytest.fail("read again"))
    again = fusion.extract(place / "source", ROWS, top_k=3, folder=tmp_path / "cache")
    assert again.artifact_key == first.artifact_key
    with pytest.raises(ValueError, match="top_k"):
        fusion.extract(place / "source", ROWS, top_k=4, folder=tmp_path / "cache")


def test_a_loss_from_the_rows_of_two_models_is_that_of_the_batch(place):
    """The long way by hand, row by row, and the short way by a collator."""
    cache = fusion.extract(place / "source", ROWS, top_k=5)
    model = AutoModelForCausalLM.from_pretrained(place / "pivot", dtype=torch.float32)
    pivot, source = (AutoTokenizer.from_pretrained(place / name) for name in ("pivot", "source"))
    collator = fusion.FusionCollator(pivot, ROWS, {"one": cache}, {"one": source})
    batch = collator([0, 1])
    targets = batch.pop("targets")
    vocabulary = len(pivot)
    logits = model(**batch).logits

    source_rows = cache.rows([example.id for example in fusion.read_examples(ROWS)])
    pairs = fusion.align(targets.positions, source_rows)
    numbers, mapped = fusion.map_to_pivot(targets.positions, source_rows, pairs, fusion.vocabulary_map(source, pivot))
    index = pairs.pivot[numbers]
    pivot_rows = fusion.logit_rows(
        logits.flatten(0, 1)[targets.hidden_index[index], :vocabulary], targets.positions.select(index), ids=mapped.ids
    )
    by_hand = fusion.objectives.ForwardKL()(pivot_rows, mapped).mean()

    output = fusion.FusionLoss([ForwardKL(weight=0.5), CrossEntropy()], vocabulary)(logits, targets)
    assert output.terms["forward_kl/one"].item() == pytest.approx(by_hand.item(), rel=1e-6)
    labels = torch.nn.functional.cross_entropy(
        logits[:, :-1, :vocabulary].flatten(0, 1), batch["labels"][:, 1:].flatten()
    )
    assert output.terms["cross_entropy"].item() == pytest.approx(labels.item(), rel=1e-6)
    assert output.loss.item() == pytest.approx(0.5 * by_hand.item() + labels.item(), rel=1e-6)
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_losses_of_micro_batches_with_their_counts_add_up_to_that_of_the_batch(place):
    cache = fusion.extract(place / "source", ROWS, top_k=5)
    collator = fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"})
    model = AutoModelForCausalLM.from_pretrained(place / "pivot", dtype=torch.float32)
    loss = fusion.FusionLoss([ForwardKL(), GLD(top_k=5), CrossEntropy()], model.config.vocab_size)

    def one(numbers, counts=None):
        batch = collator(numbers)
        targets = batch.pop("targets")
        return loss(model(**batch).logits, targets, counts).loss.item(), loss.counts(targets)

    whole, counts = one([0, 1])
    assert one([0], counts)[0] + one([1], counts)[0] == pytest.approx(whole, rel=1e-5)


def test_what_does_not_fit_together_is_refused(place):
    cache = fusion.extract(place / "source", ROWS[:1], top_k=5)
    with pytest.raises(ValueError, match="lacks 1 of 2 examples, the first is number 1"):
        fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"})
    with pytest.raises(ValueError, match="caches are of one, tokenizers of two"):
        fusion.FusionCollator(place / "pivot", ROWS[:1], {"one": cache}, {"two": place / "source"})
    other = tiny.folder("qwen2", place / "other")
    with pytest.raises(ValueError, match=r"holds ids of a tokenizer with [\d,]+ tokens, and tokenizers\['one'\] has"):
        fusion.FusionCollator(place / "pivot", ROWS[:1], {"one": cache}, {"one": other})
    assert len(fusion.Cache(str(cache.folder))) == len(cache)
    rows = cache.rows([fusion.read_examples(ROWS)[0].id])
    with pytest.raises(
        ValueError, match=r"map_to_pivot needs the pivot's tokens.*targets\.positions of FusionCollator"
    ):
        fusion.map_to_pivot(rows, rows, fusion.align(rows, rows), torch.arange(10))
    with pytest.raises(ValueError, match="exact or first_piece"):
        fusion.vocabulary_map(None, None, kind="nearest")
    with pytest.raises(ValueError, match="dtw.*texts"):
        fusion.align(*[cache.rows(cache.ids)] * 2, kind="dtw")


def with_ids_in_reverse(source, folder):
    """The same tokens under other ids, so that their number and the texts of all of them are the same."""
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    whole = json.loads((folder / "tokenizer.json").read_text())
    added = {token["content"] for token in whole["added_tokens"]}
    vocabulary = whole["model"]["vocab"]
    plain = [token for token in vocabulary if token not in added]
    vocabulary |= zip(plain, reversed([vocabulary[token] for token in plain]), strict=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    return folder


def test_another_tokenizer_of_the_same_size_is_refused_by_name(place, tmp_path):
    other = with_ids_in_reverse(place / "source", tmp_path / "other")
    mine, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (place / "source", other))
    assert len(mine) == len(theirs)
    assert mine("the quick").input_ids != theirs("the quick").input_ids
    cache = fusion.extract(place / "source", ROWS, top_k=5)
    message = (
        rf"holds ids of the tokenizer {place}/source, and tokenizers\['one'\], {other}, has other tokens under the same"
    )
    with pytest.raises(ValueError, match=message):
        fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": other})
    assert len(fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": mine})) == 2


def test_a_cache_of_before_which_does_not_say_its_tokenizer_is_taken(place, tmp_path):
    folder = fusion.extract(place / "source", ROWS, top_k=5, folder=tmp_path / "cache").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["tokenizer"], manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest | {"checksum": manifest_checksum(manifest)}))
    assert fusion.extract(place / "source", ROWS, top_k=5, folder=folder).ids == manifest["ids"]
    collator = fusion.FusionCollator(place / "pivot", ROWS, {"one": folder}, {"one": place / "source"})
    assert len(collator([0, 1])["targets"].sources["one"].pairs) > 0


def test_the_cache_of_a_run_says_its_tokenizer_too(tmp_path):
    context = RunContext(runs.config(tmp_path))
    caches = pipeline.extract(context)
    for source in context.config.sources:
        assert caches[source.name].tokenizer == tokenizer_identity(AutoTokenizer.from_pretrained(source.path))


def test_logits_of_another_shape_are_refused(place):
    cache = fusion.extract(place / "source", ROWS, top_k=5)
    collator = fusion.FusionCollator(place / "pivot", ROWS, {"one": cache}, {"one": place / "source"})
    batch, tokenizer = collator([0, 1]), AutoTokenizer.from_pretrained(place / "pivot")
    lines, length = batch["input_ids"].shape
    logits, loss = torch.randn(lines, length, len(tokenizer)), fusion.FusionLoss([ForwardKL()], len(tokenizer))
    assert loss(logits, batch["targets"]).loss > 0
    for cut in (logits[:, :-1], logits[:, 1:], logits[:1]):
        with pytest.raises(ValueError, match=f"batch of {lines} lines of {length} tokens"):
            loss(cut, batch["targets"])
    with pytest.raises(ValueError, match=r"vocabulary is .*len\(tokenizer\)"):
        loss(logits[..., :-1], batch["targets"])
