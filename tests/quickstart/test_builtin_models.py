"""The models that come with the package: whole, small, different from each other, and good at what they are named for;
their tokenizers against the text they are given; and the making of one, at a toy scale.
"""

import filecmp
import functools
import itertools
import subprocess
import sys

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from fusion.config import loading
from fusion.data.encode import encode
from fusion.quickstart import MODELS, NUMBERS, PIVOT, SOURCES, STORYTELLER, STUDENT, make, skills, tokens

FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
TOGETHER = {"quickstart": (NUMBERS, "lumi", STORYTELLER, STUDENT), "noisy_references": (*SOURCES, PIVOT)}
"""The models of each recipe."""
KINDS = [tokens.sentencepiece, tokens.gpt, tokens.unigram, tokens.digits]


@functools.cache
def load(name):
    model = AutoModelForCausalLM.from_pretrained(MODELS[name], dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(MODELS[name])


@functools.cache
def score(name, skill, count=100):
    return make.exact_match(*load(name), skills.make_questions(skill, count, seed=0, split="heldout"))


@functools.cache
def texts(count=300):
    return [row["prompt"] + row["response"] for skill in SOURCES for row in skills.make_questions(skill, count, 0)]


def test_the_names_of_the_package_and_the_recipes_agree():
    assert list(MODELS) == list(make.QUICKSTART_MODELS)
    for recipe, names in TOGETHER.items():
        config = loading.load(recipe)
        models = dict.fromkeys(each.path for each in (*config.sources, config.pivot))  # the student is a source too
        assert list(models) == [f"quickstart:{name}" for name in names]
    assert list(skills.SKILLS)[: len(SOURCES)] == list(SOURCES)  # the others are for larger models


def test_naming_the_models_loads_no_torch():
    code = "import sys, fusion.quickstart.skills; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_folders_are_whole_and_stay_under_12_megabytes_together():
    for folder in MODELS.values():
        assert {file.name for file in folder.iterdir()} == FILES
    assert sum(file.stat().st_size for folder in MODELS.values() for file in folder.iterdir()) < 12e6


@pytest.mark.parametrize("name", MODELS)
def test_the_card_beside_a_model_states_its_licence_and_how_it_is_made(name):
    text = (MODELS[name] / "README.md").read_text()
    assert text == make.CARD.format(name=name, architecture=load(name)[0].config.model_type)
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"


@pytest.mark.parametrize("recipe", TOGETHER)
def test_no_two_models_share_an_architecture_a_vocabulary_size_or_a_way_to_split_text(recipe):
    loaded = [load(name) for name in TOGETHER[recipe]]
    assert len({model.config.model_type for model, _ in loaded}) == 4
    assert len({len(tokenizer) for _, tokenizer in loaded}) == 4
    samples = ["47 + 38 = eighty-five", "sort violin oasis =", "in Lumi, old sailor feeds wise wolf ="]
    assert len({tuple(tuple(borders(tokenizer, text)) for text in samples) for _, tokenizer in loaded}) == 4


def borders(tokenizer, text):
    coded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    return sorted({end for _, end in coded["offset_mapping"]})


def test_only_a_part_of_the_borders_in_responses_is_shared_with_the_pivot():
    responses = [row["response"] for skill in SOURCES for row in skills.make_questions(skill, 100, 1)]
    mine = [set(borders(load(PIVOT)[1], text)) for text in responses]
    for name in SOURCES:
        theirs = [set(borders(load(name)[1], text)) for text in responses]
        pairs = list(zip(mine, theirs, strict=True))
        assert 0.3 < sum(len(a & b) for a, b in pairs) / sum(len(a | b) for a, b in pairs) < 0.95


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_are_finite_bfloat16_and_the_head_holds_every_token(name):
    model = AutoModelForCausalLM.from_pretrained(MODELS[name], dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.get_output_embeddings().weight.shape[0] == model.config.vocab_size >= len(load(name)[1])


def test_two_models_have_a_head_padded_beyond_their_tokenizers():
    padded = [name for name in MODELS if load(name)[0].config.vocab_size > len(load(name)[1])]
    assert padded == ["sort", STORYTELLER]


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_ends_by_itself_with_the_end_that_tokenizer_and_model_agree_on(name):
    model, tokenizer = load(name)
    assert model.generation_config.eos_token_id == model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == model.config.pad_token_id == tokenizer.pad_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert tokenizer.chat_template is None
    for skill in SOURCES:
        prompt = tokenizer(
            skills.make_questions(skill, 1, 0, split="heldout")[0]["prompt"], return_tensors="pt"
        ).input_ids
        assert model.generate(prompt)[0, prompt.shape[1] :].tolist()[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("skill", SOURCES)
def test_a_specialist_has_its_skill_which_nobody_else_has(skill):
    assert score(skill, skill) >= 0.9
    assert all(score(other, skill) <= 0.1 for other in SOURCES if other != skill)


@pytest.mark.parametrize("skill", SOURCES)
def test_the_pivot_does_each_skill_a_little_and_none_well(skill):
    assert 0 < score(PIVOT, skill, 200) <= 0.5


def test_the_source_of_numbers_says_numbers_and_does_no_other_skill():
    assert score(NUMBERS, "numbers") >= 0.9
    assert all(score(NUMBERS, other) <= 0.1 for other in SOURCES)


def test_the_storyteller_does_no_skill_that_has_a_right_answer():
    assert all(score(STORYTELLER, other) <= 0.1 for other in make.CLOSED)


@pytest.mark.parametrize("skill", ["sort", "lumi", "numbers"])
def test_the_student_does_each_skill_of_a_source_by_a_fifth_to_three_fifths(skill):
    assert 0.2 <= score(STUDENT, skill, 200) <= 0.6


def test_the_student_spells_and_no_source_does():
    assert score(STUDENT, "spell") >= 0.95
    assert all(score(name, "spell") <= 0.1 for name in MODELS if name != STUDENT)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_were_trained_on_the_very_tokens_that_a_run_gives_them(name):
    tokenizer = load(name)[1]
    for skill in SOURCES:
        for row in skills.make_questions(skill, 50, 1):
            ids, labels = make.tokenize_row(tokenizer, row)
            given = encode(tokenizer, [{"role": "user", "content": row["prompt"]}], row["response"])
            assert ids.tolist() == given.input_ids
            assert labels.ne(make.IGNORE_INDEX).sum() == given.num_rows


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_tokenizer_is_what_the_recipe_trains(name):
    rows = [
        row["prompt"] + row["response"]
        for skill in SOURCES
        for row in skills.make_questions(skill, 3000, make.QUESTIONS)
    ]
    trained = make.QUICKSTART_MODELS[name].tokenizer(rows)
    shipped = AutoTokenizer.from_pretrained(
        MODELS[name]
    )  # as it is on disk: padding leaves its settings in a tokenizer
    assert trained.backend_tokenizer.to_str() == shipped.backend_tokenizer.to_str()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["naïve 東京 12", "a  b", "47 + 38 = eighty-five", "x\ty\nz 🙂", "Ünï <é>"])
def test_a_tokenizer_gives_back_any_text(kind, text):
    tokenizer = kind(texts())
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_has_the_size_it_states_and_no_id_twice_or_missing(kind):
    ids = kind(texts(3000)).get_vocab().values()
    assert f"At most {len(ids)} tokens" in kind.__doc__
    assert sorted(ids) == list(range(len(ids)))


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_model_has_the_shape_of_its_recipe(name):
    shipped, tokenizer = load(name)
    built = make.build(make.QUICKSTART_MODELS[name], tokenizer)
    assert built.config.model_type == shipped.config.model_type
    assert shapes(built) == shapes(shipped)


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_making_a_model_twice_gives_the_same_folder_and_the_command_prints_its_scores(tmp_path, capsys):
    scores = make.make_model("sums", tmp_path / "a", steps=3, questions=2)
    make.main(["--out", str(tmp_path / "b"), "--only", "sums", "--steps", "3", "--questions", "2"])
    heading, row = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert heading == ["model", "steps", "minutes", *make.CLOSED]
    assert row == ["sums", "3", row[2], *(f"{scores[skill]:.3f}" for skill in make.CLOSED)]
    same = filecmp.cmpfiles(tmp_path / "a" / "sums", tmp_path / "b" / "sums", FILES, shallow=False)[0]
    assert set(same) == FILES


def test_training_on_a_few_rows_learns_them():
    recipe = make.QUICKSTART_MODELS["sums"]
    torch.manual_seed(0)
    tokenizer = recipe.tokenizer(texts())
    model, rows = make.build(recipe, tokenizer), skills.make_questions("sums", 8, 0)
    assert make.exact_match(model.eval(), tokenizer, rows) == 0
    make.train(model, tokenizer, rows, steps=60)
    assert make.exact_match(model, tokenizer, rows) == 1


def test_exact_match_is_the_share_of_right_answers():
    model, tokenizer = load("lumi")
    rows = skills.make_questions("lumi", 20, 0, split="heldout")
    spoiled = [row | {"response": " no"} if i % 4 == 0 else row for i, row in enumerate(rows)]
    assert make.exact_match(model, tokenizer, rows) == 1
    assert make.exact_match(model, tokenizer, spoiled) == 0.75


def test_batches_score_each_response_and_its_end_and_nothing_else():
    tokenizer = load(PIVOT)[1]
    rows = [row for skill in SOURCES for row in skills.make_questions(skill, 5, 0)]
    torch.manual_seed(0)
    (batch,) = itertools.islice(make.training_batches(tokenizer, rows), 1)
    scored = [labels[labels != make.IGNORE_INDEX].tolist() for labels in batch["labels"]]
    assert {tuple(ids[:-1]) for ids in scored} == {
        tuple(tokenizer(row["response"], add_special_tokens=False).input_ids) for row in rows
    }
    assert {ids[-1] for ids in scored} == {tokenizer.eos_token_id}
    assert batch["attention_mask"].sum() == sum(len(make.tokenize_row(tokenizer, row)[0]) for row in rows)
