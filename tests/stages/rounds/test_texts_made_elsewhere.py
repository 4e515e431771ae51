"""Texts that another program writes, from the request for them to what sources say of them: as if the pivot wrote here."""

import json
import re
import shutil
import sys
from itertools import starmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import fusion
from fusion import pipeline
from fusion.config import loading
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.elsewhere import asked_id
from fusion.stages.rounds.kept import round_folder
from tests.helpers import runs

ROUNDS = {
    "count": 1, "prompts": 4, "num_generations": 2, "max_completion_length": 8, "replay": 0,
    "objectives": [{"kind": "forward_kl"}], "training": {"max_steps": 1},
}  # fmt: skip


def config(folder, **rounds):
    training = {"max_steps": 1, "learning_rate": 1e-2, "save_strategy": "no"}
    first = {"objectives": [{"kind": "cross_entropy"}], "training": training, "baseline": False}
    raw = runs.raw(folder, rounds=ROUNDS | rounds, **first)
    raw["sources"] = raw["sources"][:1]
    return loading.parse(raw, "test")


def lines_of(one, answers):
    """What another program would write of these answers: ids as vLLM has them, and their text."""
    text = {tuple(t.rollout.ids): t.rollout.text for t in one.written}
    for id, samples in answers.items():
        for ids in samples:
            ended = ids[-1] == one.tokenizers["pivot"].eos_token_id
            said = text.get(
                tuple(ids[: len(ids) - ended]), one.tokenizers["pivot"].decode(ids, skip_special_tokens=True)
            )
            yield {"prompt_id": asked_id(one, id), "text": said, "token_ids": ids, "ended": ended}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that wrote its texts, the same run with these texts from a file, and what it said before the file was there."""
    folder = tmp_path_factory.mktemp("elsewhere")
    here = config(folder)
    pipeline.run(here, "rounds")
    one = RoundContext.of(RunContext(here), 1, round_folder(here, 0) / "model")
    shards = (here.folder / "rounds/1/responses/pivot").glob("*.jsonl")
    answers = dict(json.loads(line) for file in shards for line in file.read_text().splitlines())
    lines = list(lines_of(one, answers))
    shutil.move(here.folder / "rounds", folder / "written here")
    elsewhere = config(folder, rollouts=str(folder / "rollouts/{round}.jsonl"))
    with pytest.raises(ValueError, match="is not there") as request:
        pipeline.run(elsewhere, "rounds")
    (folder / "rollouts").mkdir()
    writes_as_the_page_says(folder, elsewhere, lines)
    pipeline.run(elsewhere, "rounds")
    return folder, elsewhere, str(request.value), lines


def writes_as_the_page_says(folder, elsewhere, lines):
    """Run the example of the page on a stand-in of vLLM that gives these answers."""
    file = elsewhere.folder / "rounds/1/prompts.jsonl"
    prompts = {tuple(p["prompt_token_ids"]): p["prompt_id"] for p in map(json.loads, file.read_text().splitlines())}

    class Engine:
        def __init__(self, model):
            assert model == f"{elsewhere.folder}/train/unified/model"

        def generate(self, asked, how):
            assert how == {"n": 4, "temperature": 1.0, "max_tokens": 256, "stop_token_ids": [2]}
            return [SimpleNamespace(outputs=[*outputs(prompts[tuple(p["prompt_token_ids"])])]) for p in asked]

    def outputs(id):
        for line in (line for line in lines if line["prompt_id"] == id):
            reason = "stop" if line["ended"] else "length"
            yield SimpleNamespace(text=line["text"], token_ids=tuple(line["token_ids"]), finish_reason=reason)

    example = examples_of_the_page(elsewhere)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=Engine, SamplingParams=dict))
        patch.chdir(folder)
        exec(compile(example, "docs/rounds.md", "exec"), {})


def examples_of_the_page(elsewhere):
    page = (Path(fusion.__file__).parent.parent / "docs/rounds.md").read_text()
    found = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return [example.replace("runs/mine", str(elsewhere.folder)).replace('"coder"', '"neox"') for example in found]


def test_where_the_file_is_missing_the_run_says_who_has_to_answer_what(made):
    folder, elsewhere, request, lines = made
    assert f"{folder}/rollouts/1.jsonl is not there" in request
    assert f"the model in {elsewhere.folder}/train/unified/model answer the 4 prompts of" in request
    assert "2 answers to each, at temperature 1" in request
    assert "of at most 8 tokens, ending at the token ids" in request
    prompts = [json.loads(line) for line in (elsewhere.folder / "rounds/1/prompts.jsonl").read_text().splitlines()]
    assert {each["prompt_id"] for each in prompts} == {line["prompt_id"] for line in lines}
    tokenizer = RunContext(elsewhere).tokenizers["pivot"]
    assert all(tokenizer.decode(each["prompt_token_ids"]) == each["prompt"] for each in prompts)
    assert all(re.search(r"number \d+:", each["prompt"]) for each in prompts)


def test_texts_from_a_file_train_the_same_weights_as_when_the_pivot_writes_here(made):
    folder, elsewhere, *_ = made
    place = "1/train/unified/model/model.safetensors"
    there, here = load_file(elsewhere.folder / "rounds" / place), load_file(folder / "written here" / place)
    assert all(torch.equal(there[name], here[name]) for name in here)
    texts = [file / "1/texts/texts.jsonl" for file in (elsewhere.folder / "rounds", folder / "written here")]
    assert texts[0].read_text() == texts[1].read_text()


def test_another_file_is_another_round(made):
    _, elsewhere, _, lines = made
    file = Path(elsewhere.rounds.rollouts.replace("{round}", "1"))
    before = file.read_text()
    file.write_text("".join(f"{json.dumps(line)}\n" for line in reversed(lines)))
    with pytest.raises(ValueError, match=r"rounds/1/responses/pivot was made from something else: rollouts: "):
        pipeline.run(elsewhere, "rounds")
    file.write_text(before)


def test_a_file_whose_texts_are_taken_in_may_be_put_away(made):
    folder, elsewhere, *_ = made
    trained = elsewhere.folder / "rounds/1/train/unified/model/model.safetensors"
    before = trained.stat().st_mtime_ns
    shutil.move(folder / "rollouts", folder / "put away")
    try:
        pipeline.run(elsewhere, "rounds")
        shorter = elsewhere.rounds.model_copy(update={"max_completion_length": 7})
        with pytest.raises(
            ValueError, match=r"responses/pivot was made from something else: max_length: 8 there, 7 here"
        ):
            pipeline.run(elsewhere.model_copy(update={"rounds": shorter}), "rounds")
    finally:
        shutil.move(folder / "put away", folder / "rollouts")
    assert trained.stat().st_mtime_ns == before


def test_a_file_that_is_mended_is_taken(made, monkeypatch):
    _, elsewhere, _, lines = made
    again = loading.parse(elsewhere.model_dump(mode="json") | {"name": "mended"}, "test")
    shutil.copytree(elsewhere.folder, again.folder, ignore=shutil.ignore_patterns("rounds", "fused"))
    file = Path(again.rounds.rollouts.replace("{round}", "1"))
    before = file.read_text()
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines[1:]))
    with pytest.raises(ValueError, match=r"1\.jsonl"):
        pipeline.run(again, "rounds")
    file.write_text(before)
    pipeline.run(again, "rounds")
    assert (again.folder / "rounds/1/texts/done.json").exists()


def test_texts_of_another_model_or_round_are_refused(made):
    _, elsewhere, *_ = made
    run = RunContext(elsewhere)
    first, second = starmap(
        lambda number, before: RoundContext.of(run, number, round_folder(elsewhere, before) / "model"), [(1, 0), (2, 0)]
    )
    another = RoundContext.of(run, 1, round_folder(elsewhere, 1) / "model")
    assert len({asked_id(each, "a prompt") for each in (first, second, another)}) == 3


def test_the_example_of_reads_writes_what_each_reader_says_of_each_token(made, tmp_path, monkeypatch):
    _, elsewhere, *_ = made
    _, example = examples_of_the_page(elsewhere)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/rounds.md", "exec"), {})
    lines = [json.loads(line) for line in (tmp_path / "reads.jsonl").read_text().splitlines()]
    assert {line["reader"] for line in lines} == {"neox", "pivot"}
    for line in lines:
        ended = line["ended"] or line["reader"] == "neox"
        text = "".join(token["token"] for token in line["tokens"][: len(line["tokens"]) - ended])
        assert line["reader"] == "neox" or text.removeprefix(" ") == line["text"].removeprefix(" ")
        assert line["tokens"][-1]["bytes_before"] <= len(line["text"].encode())
        for token in line["tokens"]:
            top = dict(map(tuple, token["top"]))
            assert len(top) == (10 if line["reader"] == "neox" else 1)
            assert token["logprob"] == pytest.approx(top.get(token["token_id"], token["logprob"]), abs=0.02)
            assert token["logprob"] <= max(top.values()) + 1e-6


@pytest.mark.parametrize(
    ("number", "reader", "said"), [(2, "neox", r"no round 2; it has 1"), (1, "x", r"reader x; choose")]
)
def test_reads_that_are_not_there_are_named(made, number, reader, said):
    with pytest.raises(ValueError, match=said):
        fusion.Run(made[1]).round_reads(number, reader)
