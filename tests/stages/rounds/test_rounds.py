"""Rounds of a tiny run: what the pivot wrote is what it learns from, token by token, and sources read the same bytes."""

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import loading
from fusion.models.head import Head, hidden_states
from fusion.models.loading import ModelRef, load_model, model_fingerprint
from fusion.runtime.artifacts import OtherInputsError
from fusion.stages.context import RunContext
from fusion.stages.rounds.context import RoundContext
from fusion.stages.rounds.kept import round_folder
from fusion.tokenizers import vocabulary_bytes
from fusion.training import TrainingCollator
from tests.helpers import runs

ROUNDS = {
    "count": 2, "prompts": 6, "num_generations": 3, "max_completion_length": 12, "replay": 0.5,
    "objectives": [{"kind": "forward_kl"}, {"kind": "cross_entropy", "weight": 0.1}],
    "training": {"max_steps": 2, "save_strategy": "no"},
}  # fmt: skip


def config(folder, **changes):
    raw = runs.raw(folder, strategies=["unified"], rounds=ROUNDS, **changes)
    for data in raw["data"]["train"]:
        data["check"] = {"kind": "final_answer", "compare": "text"}
    raw["data"]["validation"] = [
        {"path": runs.write_data(folder, "validation.jsonl", 4, start=300), "domain": "d0", "where": {"domain": 0}}
    ]
    return loading.parse(raw, "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, up to its rounds."""
    folder = tmp_path_factory.mktemp("rounds")
    chosen = config(folder)
    pipeline.run(chosen, "rounds")
    return RunContext(chosen)


@pytest.fixture(scope="module", params=[1, 2])
def one(request, run):
    """Each round of it."""
    start = round_folder(run.config, request.param - 1) / "model"
    return RoundContext.of(run, request.param, start)


def test_the_pivot_learns_from_the_very_tokens_that_it_wrote(one):
    shards = sorted((one.config.folder / "responses/pivot").glob("*.jsonl"))
    written = dict(json.loads(line) for file in shards for line in file.read_text().splitlines())
    table = vocabulary_bytes(one.tokenizers["pivot"])
    for text, encoded in zip(one.written, one.encoded("pivot"), strict=True):
        ids = encoded.input_ids[encoded.start :]
        assert any(ids == sampled[: len(ids)] for sampled in written[text.example.prompt_id])
        assert b"".join(table[index] or b"" for index in text.rollout.ids) == text.example.response.encode()
        assert encoded.num_rows == len(text.rollout.ids) + (text.rollout.end is not None)
    assert len(one.written) > len(one.original_examples), "the pivot wrote hardly anything that can be read"


def test_before_the_first_step_the_ratio_of_both_pivots_is_one(one):
    learning, caches = one.learning, {name: Cache(one.config.folder / "cache" / name) for name in ("pivot", "neox")}
    model = load_model(ModelRef(str(round_folder(one.run.config, one.number - 1) / "model")), "float32", "cpu")
    data = learning.rollout_data([], learning.objectives(learns_from_sources=True))
    collator = TrainingCollator(
        learning.train_examples, learning.encoded("pivot"), [], learning.weighting, rollouts=data
    )
    batch = collator(range(len(learning.train_examples)))
    targets = batch.pop("targets")
    with torch.inference_mode():
        hidden = hidden_states(model, **batch).flatten(0, 1)[targets.hidden_index]
        gold = (
            Head.from_model(model, len(vocabulary_bytes(one.tokenizers["pivot"])))
            .rows(hidden, targets.positions, 1)[0]
            .gold
        )
    written = ~targets.rollouts.old_logprobs.isnan()
    torch.testing.assert_close(targets.rollouts.old_logprobs[written], gold[written], rtol=0, atol=1e-4)
    parts = [info.part for info in targets.examples]
    assert parts.count("rollouts") == len(one.written)
    assert parts.count("replay") == round(0.5 * len(one.written))
    assert {parts[int(example)] for example in targets.positions.example[written]} == {"rollouts"}
    assert caches["neox"].known_fields.rows


def test_sources_read_the_same_bytes(one):
    for name in ("neox", "qwen"):
        table = vocabulary_bytes(one.tokenizers[name])
        for text, encoded in zip(one.written, one.encoded(name), strict=True):
            *ids, end = encoded.input_ids[encoded.start :]  # with its own end of turn
            assert table[end] is None
            assert encoded.prefix[-1] == len(text.example.response.encode())
            spelled = b"".join(table[index] or b"?" for index in ids).decode().removeprefix(" ")
            unknown = set(text.example.response) - set(spelled)  # these tokenizers are made of few words
            assert unknown or spelled == text.example.response.removeprefix(" ")


def test_each_round_learns_from_the_model_before_and_leaves_another(run):
    weights = [load_file(round_folder(run.config, number) / "model/model.safetensors") for number in range(3)]
    for before, after in itertools.pairwise(weights):
        assert any(not torch.equal(before[name], after[name]) for name in before)
    key = json.loads((run.config.folder / "rounds/2/train/unified/key.json").read_text())
    assert key["pivot"] == RoundContext.of(run, 3, round_folder(run.config, 1) / "model").fingerprints["pivot"]


def test_other_prompts_come_in_the_second_round_and_none_twice_in_one(run):
    asked = [RoundContext.of(run, n, round_folder(run.config, n - 1) / "model").asked for n in (1, 2)]
    assert all(len(set(each)) == 6 for each in asked)
    assert not set(asked[0]) & set(asked[1])


def test_a_finished_run_does_nothing_again_and_is_what_the_record_says(run):
    before = {file: file.stat().st_mtime_ns for file in (run.config.folder / "rounds").rglob("*.safetensors")}
    pipeline.run(run.config, "rounds")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    record = run.record.read()
    assert all(stage["skipped"] for stage in record["stages"] if stage["name"].startswith("round "))
    scores = [[each["pass_at_1"] for each in one] for one in record["rounds"]["scores"]]
    assert record["rounds"]["kept"] == scores.index(max(scores))
    for number, (rate,) in enumerate(scores):
        kept = json.loads((run.config.folder / f"rounds/validation/{number}/pass_rates.json").read_text())
        assert kept == {"d0": rate}
    fused = load_file(run.config.folder / "fused/model.safetensors")
    kept = load_file(round_folder(run.config, record["rounds"]["kept"]) / "model/model.safetensors")
    assert all(torch.equal(fused[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"max_completion_length": 11}, "rounds/validation/0"),
        ({"num_generations": 2}, "rounds/1/responses/pivot"),
        ({"training": {"max_steps": 3, "save_strategy": "no"}}, "rounds/1/train/unified"),
    ],
)
def test_what_was_made_with_other_settings_is_named_with_the_command_that_makes_it_again(run, changed, place):
    other = loading.parse(run.config.model_dump(mode="json") | {"rounds": {**ROUNDS, **changed}}, "test")
    with pytest.raises(ValueError, match="made from something else") as refused:
        pipeline.run(other, "rounds")
    assert f"{place} was made from something else" in str(refused.value)
    assert "run `fusion rounds` again" in str(refused.value)


def test_a_changed_setting_of_rounds_is_refused_once_with_all_that_has_to_go(run, tmp_path):
    folder = tmp_path / "small"
    shutil.copytree(run.config.folder, folder, symlinks=True)
    changed = {"rounds": {**ROUNDS, "training": {"max_steps": 3, "save_strategy": "no"}}, "runs": str(tmp_path)}
    other = loading.parse(run.config.model_dump(mode="json") | changed, "test")
    with pytest.raises(OtherInputsError) as refused:
        pipeline.run(other, "rounds")
    assert [str(path.relative_to(folder)) for path in refused.value.paths] == ["rounds/1/train/unified"]
    behind = {str(path.relative_to(folder)) for path in refused.value.following}
    assert behind >= {"rounds/validation/1", "rounds/2/texts", "rounds/2/responses", "rounds/validation/2", "fused"}
    assert not any(each.startswith(("train", "cache", "rounds/1", "rounds/validation/0")) for each in behind)
    for path in (*refused.value.paths, *refused.value.following):
        shutil.rmtree(path)
    pipeline.run(other, "rounds")


def test_more_rounds_are_not_kept_before_they_may_become_the_result(tmp_path):
    rounds = {**ROUNDS, "count": 1, "keep": "last"}
    raw = runs.raw(tmp_path, strategies=["unified"], baseline=False, rounds=rounds)
    folder = pipeline.run(loading.parse(raw, "test"), "rounds")
    fused = (folder / "fused/model.safetensors").read_bytes()
    more = loading.parse(raw | {"rounds": rounds | {"count": 2}}, "test")
    with pytest.raises(ValueError, match=r"fused was made from something else"):
        pipeline.run(more, "rounds")
    assert json.loads((folder / "rounds/kept.json").read_text()) == {"round": 1}
    assert json.loads((folder / "run.json").read_text())["rounds"]["kept"] == 1
    assert (folder / "fused/model.safetensors").read_bytes() == fused
    shutil.rmtree(folder / "fused")
    pipeline.run(more, "rounds")
    assert json.loads((folder / "rounds/kept.json").read_text()) == {"round": 2}
    after = (folder / "rounds/2/train/unified/model/model.safetensors").read_bytes()
    assert (folder / "fused/model.safetensors").read_bytes() == after != fused


def test_after_a_merge_the_pairwise_models_read_what_the_merged_one_writes(tmp_path):
    repair = {**ROUNDS, "count": 1, "learn_from": "pairwise", "replay": 0, "objectives": [{"kind": "forward_kl"}]}
    raw = runs.raw(tmp_path, strategies=["pairwise"], baseline=False, merge={"kind": "linear"}, rounds=repair)
    pipeline.run(loading.parse(raw, "test"), "rounds")
    folder = tmp_path / "runs/small"
    fused, merged = (
        load_file(file)
        for file in (folder / "fused/model.safetensors", folder / "train/pairwise/merged/model/model.safetensors")
    )
    assert any(not torch.equal(fused[name], merged[name]) for name in merged)
    key = json.loads((folder / "rounds/1/cache/neox/key.json").read_text())
    assert key["model"] == model_fingerprint(ModelRef(str(folder / "train/pairwise/neox/model")))
    (log,) = [
        entry for entry in json.loads((folder / "rounds/1/train/unified/log.json").read_text()) if entry["step"] == 1
    ]
    assert log["match/neox"] == log["match/qwen"] == 1, "with one vocabulary every token that was written is compared"


OTHER_ENDS = range(300, 340)  # many, for a model with random weights seldom writes a certain one


def ends_with_other_tokens_too(folder):
    """Let a model declare more tokens at which it ends, as chat models do with their eos and their end of turn."""
    tokenizer, file = AutoTokenizer.from_pretrained(folder), folder / "generation_config.json"
    ends = [tokenizer.eos_token_id, *OTHER_ENDS]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": ends}))
    return tokenizer


def check_ends_are_one_event(one, tokenizer):
    """What the pivot said of the end of its texts is what it gives to all of its ends together, whichever it wrote."""
    stop = list(one.pivot_stop_ids)
    assert stop == [tokenizer.eos_token_id, *OTHER_ENDS]
    ended = [n for n, text in enumerate(one.written) if text.rollout.end is not None]
    encoded = [one.encoded("pivot")[n] for n in ended]
    assert len({one.written[n].rollout.end for n in ended}) > 2, "hardly a text ended"
    assert {text.input_ids[-1] for text in encoded} == {stop[0]}
    if one.config.training.get("bf16"):
        return
    model = load_model(ModelRef(one.config.pivot.path), "float32", "cpu")
    gold = Cache(one.config.folder / "cache/pivot").rows([one.ids[n] for n in ended])
    for text, last in zip(encoded, gold.gold[gold.is_last], strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([text.input_ids[:-1]])).logits[0, -1, : len(tokenizer)]
        assert float(logits.log_softmax(-1)[stop].logsumexp(0)) == pytest.approx(float(last), abs=1e-4)


@pytest.mark.parametrize("training", [{}, {"bf16": True}], ids=["float32", "mixed"])
def test_policy_objectives_begin_at_the_pivot_that_wrote(tmp_path, training):
    """With an adapter, whose start is the merged model of the round before; in the precision in which it is trained."""
    terms = [
        {"kind": "policy_gradient", "beta": 0.1},
        {"kind": "group_reward"},
        {"kind": "cross_entropy", "part": "replay"},
    ]
    rounds = {**ROUNDS, "count": 1, "objectives": terms, "training": {"max_steps": 1, "learning_rate": 1e-3} | training}
    raw = runs.raw(tmp_path, strategies=["unified"], baseline=False, rounds=rounds, adapter={"kind": "lora"})
    tokenizer = ends_with_other_tokens_too(tmp_path / "pivot")
    chosen = loading.parse(raw, "test")
    pipeline.run(chosen, "rounds")
    check_ends_are_one_event(RoundContext.of(RunContext(chosen), 1, round_folder(chosen, 0) / "model"), tokenizer)
    (entry,) = json.loads((tmp_path / "runs/small/rounds/1/train/unified/log.json").read_text())
    assert entry["policy_gradient/ratio"] == pytest.approx(1, abs=1e-4)
    assert entry["group_reward/kl_old"] == pytest.approx(0, abs=1e-6)
    assert entry["policy_gradient/kl"] > 0, "the first training moved the pivot from where the run began"


def test_a_round_ends_when_the_pivot_has_moved_too_far(tmp_path):
    steps = {
        "max_steps": 6,
        "learning_rate": 0.3,
        "lr_scheduler_type": "constant",
        "save_strategy": "steps",
        "save_steps": 1,
    }
    rounds = {**ROUNDS, "count": 1, "replay": 0, "objectives": [{"kind": "least_likely"}], "training": steps}
    raw = runs.raw(tmp_path, strategies=["unified"], baseline=False, rounds=rounds)
    pipeline.run(loading.parse(raw, "test"), "rounds")
    training = tmp_path / "runs/small/rounds/1/train/unified"
    log, whole = json.loads((training / "log.json").read_text()), load_file(training / "model/model.safetensors")
    ratios = [entry["least_likely/clip_ratio"] for entry in log]
    assert len(log) < 6
    assert ratios[-1] > 0.2 >= max(ratios[:-1])
    (training / "done.json").unlink()
    pipeline.run(loading.parse(raw, "test"), "rounds")
    assert all(torch.equal(load_file(training / "model/model.safetensors")[name], whole[name]) for name in whole)
    assert len(json.loads((training / "log.json").read_text())) == len(log)
