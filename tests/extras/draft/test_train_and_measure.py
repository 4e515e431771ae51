"""Drafts for tiny models: the same text as without them, more of it a check once trained, resumed where they were stopped."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from transformers import TrainerCallback
from typer.testing import CliRunner

from fusion.cli import app, run
from fusion.cli.draft import parse_settings
from fusion.data import datasets
from fusion.data.encode import encode
from fusion.extras.draft import Draft, DraftSettings, DraftShape, acceptance, generate, load, save, train_and_measure
from fusion.extras.draft.generate import Speculator
from fusion.extras.draft.train import DraftCollator
from fusion.extras.draft.train_and_measure import DraftData
from fusion.models.head import Head, hidden_states
from fusion.models.loading import ModelRef, load_model, load_tokenizer
from fusion.runtime.locks import exclusive
from tests.helpers import runs, tiny

FAST = DraftSettings(max_steps=60, learning_rate=3e-3, save_steps=30, depth=3, max_new_tokens=12)


def speculator(kind="llama", vocabulary=60, seed=0, **how):
    target = tiny.model(kind, vocabulary)
    torch.manual_seed(seed)
    return Speculator(target, Head.from_model(target, vocabulary), Draft(DraftShape.from_target(target)).eval(), **how)


def greedy(target, prompt, length):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(length):
            ids = torch.cat([ids, target(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gemma2", "cohere"])
@pytest.mark.parametrize("depth", [1, 4])
def test_greedy_text_is_the_targets_own_for_any_draft(kind, depth):
    one = speculator(kind, depth=depth)
    for prompt in ([1], [5, 9, 2, 40], list(range(20))):
        tokens, tokens_per_check = generate(one, prompt, 15)
        assert tokens == greedy(one.target, prompt, 15)
        assert sum(tokens_per_check) >= 14
        assert all(1 <= n <= depth + 1 for n in tokens_per_check)


class Oracle(Draft):
    """Knows the target: tells the tokens by their embeddings, and says the true next states. `first` is the first of them."""

    def __init__(self, target):
        super().__init__(DraftShape.from_target(target))
        self.target, self.first = target, torch.tensor([7])

    def forward(self, embedded, features):
        table = self.target.get_input_embeddings().weight
        ids = torch.cat([self.first, (embedded[0][:, None] == table).all(-1).long().argmax(-1)])
        hidden = hidden_states(self.target, input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])
        return hidden[:, 1:], hidden[:, 1:]


def test_a_draft_that_knows_the_target_has_every_guess_accepted():
    one = speculator(depth=3)
    knows = Speculator(one.target, one.head, Oracle(one.target), depth=3)
    tokens, tokens_per_check = generate(knows, [7, 3, 2], 13)
    assert tokens == greedy(one.target, [7, 3, 2], 13)
    assert tokens_per_check == [4, 4, 4]
    measured = acceptance(knows, [[7, 3, 2], [7, 1]], 13)
    assert (measured.acceptance_length, measured.acceptance_rates, measured.checks) == (4.0, [1.0, 1.0, 1.0], 6)


def test_text_ends_with_the_stop_token():
    one = speculator(depth=4)
    whole = greedy(one.target, [3, 4], 15)
    stop = whole[6]
    tokens, _ = generate(one, [3, 4], 15, stop=stop)
    assert tokens == whole[: whole.index(stop) + 1]


def test_sampled_text_has_the_targets_distribution():
    """The second and third token, of which a draft guesses, over 700 texts; the joint distribution from the target itself."""
    V, prompt, trials = 4, [1, 2], 700
    one = speculator(vocabulary=V, depth=2, temperature=1.0, generator=torch.Generator().manual_seed(0))
    seen = torch.zeros(V, V, V)
    for _ in range(trials):
        a, b, c = generate(one, prompt, 3)[0]
        seen[a, b, c] += 1
    expected = torch.zeros(V, V, V, dtype=torch.float64)
    with torch.no_grad():
        for a in range(V):
            for b in range(V):
                p = one.target(input_ids=torch.tensor([[*prompt, a, b]])).logits[0].double().softmax(-1)
                expected[a, b] = p[1, a] * p[2, b] * p[3] * trials
    seen, expected = seen.double().flatten(), expected.flatten()
    rare = expected < 5
    seen, expected = (torch.cat([x[~rare], x[rare].sum()[None]]) for x in (seen, expected))
    assert len(seen) > 5
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3


def test_without_a_check_the_length_is_unknown():
    found = acceptance(speculator(), [[1]], 1)
    assert found.checks == 0
    assert math.isnan(found.acceptance_length)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder and its texts."""
    folder = tmp_path_factory.mktemp("draft")
    runs.models(folder)
    runs.write_data(folder, "texts.jsonl", 24)
    return folder


def examples(folder):
    return datasets.load(str(folder / "texts.jsonl"), domain="draft")


def made(folder, out, settings=FAST):
    data = DraftData(examples(folder), heldout=4, max_length=128)
    return train_and_measure.train_and_measure(ModelRef(str(folder / "pivot")), data, settings, out)


@pytest.fixture(scope="module")
def trained(folder):
    return folder / "draft", made(folder, folder / "draft")


def test_a_trained_draft_guesses_better_than_a_random_one(folder, trained):
    out, measured = trained
    log = json.loads((out / "draft.json").read_text())["log"]
    assert len(log) == 60
    first, last = ({part: sum(e[part] for e in some) / 10 for part in log[0]} for some in (log[:10], log[-10:]))
    assert last["regression"] < 0.8 * first["regression"]
    assert last["prediction"] < first["prediction"] - 0.05  # the target is nearly even: its entropy is most of this
    target, tokenizer = load_model(ModelRef(str(folder / "pivot"))), load_tokenizer(ModelRef(str(folder / "pivot")))
    texts = [encode(tokenizer, e.messages, e.response) for e in examples(folder)[-4:]]
    head = Head.from_model(target, max(tokenizer.get_vocab().values()) + 1)
    random = train_and_measure.measure(
        target, head, Draft(DraftShape.from_target(target)), texts, settings=FAST, stop=None
    )
    assert (
        measured[0].acceptance_length > random[0].acceptance_length + 0.2
    )  # greedy; sampled ones are accepted where both are even
    for mine in measured:
        assert mine.acceptance_rates == sorted(mine.acceptance_rates, reverse=True)
        assert mine.acceptance_length == pytest.approx(1 + sum(mine.acceptance_rates))


def test_the_target_is_not_changed(folder, trained):
    assert not any(name.startswith("target") for name in load_file(trained[0] / "draft.safetensors"))


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 45:
            raise RuntimeError("killed")


def test_a_killed_training_ends_with_the_same_draft(folder, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(train_and_measure, "training_bar", lambda _: [Kill()])
        with pytest.raises(RuntimeError, match="killed"):
            made(folder, tmp_path)
    assert [place.name for place in tmp_path.glob("checkpoint-*")] == ["checkpoint-30"]
    assert made(folder, tmp_path) == trained[1]
    assert (tmp_path / "draft.safetensors").read_bytes() == (trained[0] / "draft.safetensors").read_bytes()


def test_a_second_run_does_nothing_and_another_is_refused(folder, trained, capsys):
    out, measured = trained
    before = (out / "draft.safetensors").stat().st_mtime_ns
    assert made(folder, out) == measured
    assert (out / "draft.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"settings \(seed: 0 there, 5 here\)"):
        made(folder, out, FAST.model_copy(update={"seed": 5}))


def test_a_draft_is_measured_on_another_model_of_its_width(folder, trained):
    found = train_and_measure.measure_existing(ModelRef(str(folder / "neox")), trained[0], examples(folder)[-2:], FAST)
    assert [one.temperature for one in found] == [0.0, 1.0]
    assert all(1 <= one.acceptance_length <= 4 for one in found)


def test_a_model_of_another_width_is_refused(folder, trained, tmp_path):
    save(Draft(DraftShape(16, 2, 8)), tmp_path)
    with pytest.raises(ValueError, match="reads states of width 16, .*neox has 32: make one for it"):
        train_and_measure.measure_existing(ModelRef(str(folder / "neox")), tmp_path, examples(folder)[-2:], FAST)


def test_places_answer_for_the_rows_of_the_response(folder):
    tokenizer = load_tokenizer(ModelRef(str(folder / "pivot")))
    texts = [encode(tokenizer, e.messages, e.response) for e in examples(folder)[:3]]
    batch = DraftCollator(texts, 0)([0, 1, 2])
    width = batch["input_ids"].shape[1] - 1
    expected = [
        b * width + t - 1 for b, x in enumerate(texts) for t in range(x.start - 1, len(x.input_ids) - 1) if t > 0
    ]
    assert batch["at"].tolist() == expected


def test_too_few_examples_are_refused(folder):
    data = DraftData(examples(folder), heldout=24, max_length=128)
    message = "There are 24 examples, and 24 are held out: give more, or set --heldout lower"
    with pytest.raises(ValueError, match=message):
        train_and_measure.train_and_measure(ModelRef(str(folder / "pivot")), data, FAST, folder / "x")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("depth", "--set depth: write it as name=value"),
        ("deepth=3", r"no such setting: --set deepth; did you mean depth\?"),
        ("clip=1", "--set clip; it is called max_grad_norm now"),
        ("depth=0", "--set depth: Input should be greater than 0, got 0"),
    ],
)
def test_a_wrong_setting_is_named(word, message):
    with pytest.raises(ValueError, match=message):
        parse_settings([word])


def test_settings_come_from_words():
    assert parse_settings(["learning_rate=1e-3", "depth=2"]) == DraftSettings(learning_rate=1e-3, depth=2)


def test_the_command_trains_prints_a_table_and_measures_again(folder):
    words = ["draft", str(folder / "pivot"), "--data", str(folder / "texts.jsonl"), "--out", str(folder / "by command")]
    words += ["--heldout", "2", "--set", "max_steps=2", "--set", "max_new_tokens=4", "--set", "depth=2"]
    for more in ([], ["--only-measure"], ["--out", str(folder / "half"), "--dtype", "bfloat16"]):
        done = CliRunner().invoke(app, words + more)
        assert done.exit_code == 0, done.output
        assert "greedy" in done.output
        assert "acceptance length" in done.output
    assert load(folder / "by command").shape.width == 32


def test_the_command_says_what_is_wrong(folder, monkeypatch, capsys):
    words = ["draft", str(folder / "pivot"), "--data", str(folder / "texts.jsonl"), "--out", "x", "--set", "depth=0"]
    monkeypatch.setattr("sys.argv", ["fusion", *words])
    assert run() == 1
    assert "--set depth" in capsys.readouterr().err


def test_a_draft_that_is_being_written_is_refused_with_the_name_of_the_process(folder, tmp_path):
    lock = exclusive(tmp_path / ".draft.lock", "it")
    refused = pytest.raises(BlockingIOError, match=r"The draft in .*draft is being written by process \d+ on ")
    with lock, ThreadPoolExecutor() as pool, refused:
        pool.submit(made, folder, tmp_path / "draft").result()
    assert not (tmp_path / "draft").exists()
