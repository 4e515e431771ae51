"""`fusion cache`: from another program's files to a run that learns from them, and what a cache says of itself."""

import json
import shutil

import pytest
import torch
import yaml
from typer.testing import CliRunner

from fusion import pipeline
from fusion.analysis.cache_contents import describe_cache
from fusion.cache import Cache
from fusion.cli import app, run
from fusion.models.loading import ModelRef, load_model
from fusion.stages.context import RunContext
from fusion.stages.import_cache import import_cache
from tests.helpers import runs

OBJECTIVES = [{"kind": "cross_entropy", "weight": 0.5}, {"kind": "forward_kl", "weight": 0.5}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def raw(folder, **changes):
    """A run whose second source is imported, and whose folder holds no weights."""
    made, alone = runs.raw(folder, objectives=OBJECTIVES, **changes), folder / "no weights"
    shutil.copytree(folder / "qwen", alone, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    made["sources"][1] = {"name": "qwen", "path": str(alone), "backend": {"kind": "imported"}}
    return made


def job_of(folder, **changes):
    return RunContext(runs.loading.parse(raw(folder, **changes), "test"))


@pytest.fixture(scope="module")
def dump(folder):
    """What the model `qwen` says of all examples, as a program of one's own would write it down."""
    context, model = job_of(folder), load_model(ModelRef(str(runs.models(folder)["qwen"])))
    size = max(context.tokenizers["qwen"].get_vocab().values()) + 1
    lines = []
    for text in context.encoded("qwen"):
        with torch.no_grad():
            whole = model(torch.tensor([text.input_ids])).logits[0, :-1, :size].log_softmax(-1)
        values, ids = whole.topk(12)
        lines.append({"input_ids": text.input_ids, "ids": ids.tolist(), "logprobs": values.tolist()})
    file = folder / "theirs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    return file


def test_a_run_learns_from_imported_rows_as_from_extracted_ones(folder, dump):
    extracted = pipeline.run(runs.config(folder, name="extracted", objectives=OBJECTIVES), until="extract")
    (folder / "mine.yaml").write_text(yaml.safe_dump(raw(folder, name="mine")))
    command = ["cache", "import", str(dump), "--format", "jsonl", "--config", str(folder / "mine.yaml")]
    done = CliRunner().invoke(app, [*command, "--source", "qwen"], catch_exceptions=False)
    assert done.exit_code == 0
    run = pipeline.run(job_of(folder, name="mine").config, until="train")
    ids = job_of(folder).ids
    mine, theirs = (Cache(place / "cache/qwen").rows(ids) for place in (run, extracted))
    assert (mine.ids == theirs.ids).float().mean() > 0.99  # all but ties
    torch.testing.assert_close(mine.logprobs, theirs.logprobs, atol=0.06, rtol=0)  # each is within 0.03 of the truth
    assert mine.mean.isnan().all()
    helping = json.loads((run / "run.json").read_text())["helping"]
    assert {row["gold_source"] for row in helping if row["source"] == "qwen"} == {None}
    record = json.loads((run / "cache/qwen/imported.json").read_text())
    assert (record["format"], list(record["files"]), record["sequences"]) == (
        "jsonl",
        ["theirs.jsonl"],
        {"matched": 16},
    )


def test_what_imported_rows_do_not_know_is_refused_before_training(folder, dump):
    context = job_of(folder, name="lacking", weighting={"kind": "gold_posterior"})
    import_cache(context, "qwen", "jsonl", [dump])
    with pytest.raises(
        ValueError, match=r"weighting \(gold_posterior\) needs .*, which \d+ of \d+ rows of source qwen"
    ):
        pipeline.run(context.config, until="train")
    assert not (context.config.folder / "train").exists()


def test_examples_that_are_in_none_of_the_files_are_counted(folder, dump, tmp_path):
    lines, some, other = dump.read_text().splitlines(), tmp_path / "some.jsonl", tmp_path / "other.jsonl"
    some.write_text("\n".join(lines[:13]))
    with pytest.raises(
        ValueError, match=r"3 of 16 examples are in none of the files, .* Of 13 sequences 13 were of use\. "
    ):
        import_cache(job_of(folder, name="some"), "qwen", "jsonl", [some])
    shifted = [json.loads(line) for line in lines]
    for line in shifted:
        line["input_ids"] = [1, *line["input_ids"][:-1]]
    other.write_text("\n".join(map(json.dumps, shifted)))
    with pytest.raises(
        ValueError, match=r"16 of 16 examples .* Of 16 sequences 0 were of use; 16 begin like no example"
    ):
        import_cache(job_of(folder, name="other"), "qwen", "jsonl", [other])


@pytest.mark.parametrize("name", ["pivot", "neox", "nobody"])
def test_only_a_source_that_says_so_is_imported(folder, dump, name):
    with pytest.raises(
        ValueError, match=rf"{name} is no source whose rows come from elsewhere; the sources are neox, qwen"
    ):
        import_cache(job_of(folder, name="wrong"), name, "jsonl", [dump])


def test_a_complete_cache_is_not_made_again(folder, dump, tmp_path):
    context = job_of(folder, name="again")
    import_cache(context, "qwen", "jsonl", [dump], out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"out is complete already. Delete it to import again"):
        import_cache(context, "qwen", "jsonl", [dump], out=tmp_path / "out")
    assert not (context.config.folder / "cache").exists()


def test_extraction_says_that_the_rows_must_be_imported(folder):
    with pytest.raises(
        ValueError, match=r"backend kind: imported, and its cache is not there yet. Run `fusion cache import"
    ):
        pipeline.run(job_of(folder, name="forgotten").config, until="extract")


def test_a_cache_with_hidden_states_says_so_and_its_key_too(folder):
    extract = runs.raw(folder)["extract"] | {"hidden_states": True}
    run = pipeline.run(runs.config(folder, name="hidden", extract=extract), until="extract")
    assert describe_cache(run / "cache/qwen")["hidden states"] == "32 numbers of float16 a row"
    assert describe_cache(run / "cache/qwen")["made of: hidden"] == "true"
    assert not {"hidden states", "made of: hidden"} & describe_cache(run / "cache/pivot").keys()
    with pytest.raises(ValueError, match="hidden"):  # made from something else
        pipeline.run(runs.config(folder, name="hidden"), until="extract")


def test_a_cache_says_what_it_is_finished_or_not(folder, dump, tmp_path):
    import_cache(job_of(folder, name="facts"), "qwen", "jsonl", [dump], out=tmp_path / "out")
    told = describe_cache(tmp_path / "out")
    assert (told["examples"], told["entries a row"], told["mean and std known"]) == ("16", "10", "0.0% of rows")
    assert told["imported"] == "jsonl: theirs.jsonl (16 matched)"
    assert told["made of: top_k"] == "10"
    (tmp_path / "out/manifest.json").unlink()
    (tmp_path / "out/shard-00001-of-00004.safetensors").unlink()
    assert describe_cache(tmp_path / "out")["not complete"].startswith("3 of 4 shards are written")
    with pytest.raises(ValueError, match="is no cache: it holds no key.json"):
        describe_cache(tmp_path)


def test_the_command_line_shows_and_verifies(folder, dump, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    import_cache(job_of(folder, name="verified"), "qwen", "jsonl", [dump], out=out)
    done = CliRunner().invoke(app, ["cache", "verify", str(out)])
    assert "rows of 16 examples, all as they were written" in done.stdout
    assert CliRunner().invoke(app, ["cache", "show", str(out)]).exit_code == 0
    shard = out / "shard-00001-of-00004.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    monkeypatch.setattr("sys.argv", ["fusion", "cache", "verify", str(out)])
    assert run() == 1
    assert "shard-00001-of-00004.safetensors is damaged" in capsys.readouterr().err


def test_an_unknown_format_is_answered_with_the_known_ones(dump, monkeypatch, capsys):
    command = ["fusion", "cache", "import", str(dump), "--format", "csv", "--config", "x", "--source", "y"]
    monkeypatch.setattr("sys.argv", command)
    assert run() == 1
    assert "--format csv: there are distillkit, megatron, vllm, jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "cause"), [
    (lambda row: [value + 20 for value in row], "look like logits"),
    (lambda row: [-value for value in row], "look like -log p"),
    (lambda row: [value - 40 for value in row], "cannot have the rest"),
])  # fmt: skip
def test_other_numbers_than_log_probabilities_are_refused_with_the_line(
    folder, dump, tmp_path, monkeypatch, capsys, change, cause
):
    lines = [json.loads(line) for line in dump.read_text().splitlines()]
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("\n".join(json.dumps(line | {"logprobs": [*map(change, line["logprobs"])]}) for line in lines))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw(folder, name="wrong-numbers")))
    command = ["cache", "import", str(wrong), "--format", "jsonl", "--config", str(tmp_path / "mine.yaml")]
    monkeypatch.setattr("sys.argv", ["fusion", *command, "--source", "qwen"])
    assert run() == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "wrong.jsonl, line 1, row" in said
    assert cause in said
    assert "Traceback" not in said
