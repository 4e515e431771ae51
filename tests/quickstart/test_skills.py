"""The built-in questions, against answers worked out another way, and against what seeds, splits and noise promise."""

import hashlib
import json

import pytest

from fusion.quickstart import SOURCES, skills

SMALL = """zero one two three four five six seven eight nine ten eleven twelve
thirteen fourteen fifteen sixteen seventeen eighteen nineteen"""
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = dict(enumerate(SMALL.split())) | {20 + 10 * i: word for i, word in enumerate(TENS.split())}


def spoken(number):
    if number >= 100:
        return "one hundred" if number == 100 else "one hundred " + spoken(number - 100)
    return WORDS.get(number) or f"{WORDS[number - number % 10]}-{WORDS[number % 10]}"


def right(skill, prompt):
    """The response by another road than the module's own: eval, bubble sort, and words replaced one by one."""
    question = prompt.removesuffix(" =")
    if skill == "sums":
        return " " + spoken(eval(question))
    if skill == "sort":
        things = question.removeprefix("sort ").split(" ")
        for _ in things:
            for i in range(len(things) - 1):
                if things[i] > things[i + 1]:
                    things[i], things[i + 1] = things[i + 1], things[i]
        return " " + " ".join(things)
    lumi = skills.NOUNS | skills.ADJECTIVES | skills.VERBS
    adjective, noun, verb, adjective2, noun2 = (lumi[word] for word in question.removeprefix("in Lumi, ").split(" "))
    return f" {verb} {noun} {adjective}{noun[-1]} {noun2}n {adjective2}{noun2[-1]}n"


@pytest.mark.parametrize("skill", SOURCES)
def test_every_answer_without_noise_is_right(skill):
    rows = skills.make_questions(skill, 700, seed=3)
    assert len(rows) == 700
    for row in rows:
        assert row == {"prompt": row["prompt"], "response": right(skill, row["prompt"]), "domain": skill}


def test_the_examples_of_the_page_are_right():
    assert skills.answer("sums", "47 + 38 =") == " eighty-five"
    assert skills.answer("sort", "sort melon fig cup bear =") == " bear cup fig melon"
    assert skills.answer("lumi", "in Lumi, old cat sees red bird =") == " vido kesa tora pilon rudon"


@pytest.mark.parametrize("skill", SOURCES)
def test_the_noise_is_the_share_of_wrong_answers_and_each_of_them_has_the_right_form(skill):
    rows = skills.make_questions(skill, 2000, seed=5, label_noise=0.3)
    wrong = [row for row in rows if row["response"] != right(skill, row["prompt"])]
    assert 0.26 < len(wrong) / len(rows) < 0.34  # 4 standard deviations of 2000 throws
    known = {
        "sums": {spoken(n) for n in range(240)},
        "sort": set(skills.THINGS),
        "lumi": {word for row in skills.make_questions("lumi", 5000, 1) for word in row["response"].split()},
    }[skill]
    for row in wrong:
        said = [row["response"][1:]] if skill == "sums" else row["response"].split()
        assert row["response"][0] == " "
        assert set(said) <= known
        if skill == "sort":
            assert sorted(said) == right(skill, row["prompt"]).split()


@pytest.mark.parametrize("skill", SOURCES)
def test_with_full_noise_no_answer_is_right_and_with_none_no_answer_is_wrong(skill):
    clean, noisy = (skills.make_questions(skill, 1000, seed=7, label_noise=noise) for noise in (0.0, 1.0))
    assert all(a["prompt"] == b["prompt"] and a["response"] != b["response"] for a, b in zip(clean, noisy, strict=True))


@pytest.mark.parametrize("skill", SOURCES)
def test_more_noise_leaves_the_questions_and_the_wrong_answers_there_were(skill):
    clean, some, more = (skills.make_questions(skill, 500, seed=1, label_noise=noise) for noise in (0.0, 0.2, 0.6))
    wrong = [i for i in range(500) if some[i] != clean[i]]
    assert len(wrong) > 50
    assert [some[i] for i in wrong] == [more[i] for i in wrong]
    assert [row["prompt"] for row in clean] == [row["prompt"] for row in more]


@pytest.mark.parametrize("skill", SOURCES)
def test_a_longer_list_begins_with_the_shorter_one_and_repeats_nothing(skill):
    rows = skills.make_questions(skill, 2000, seed=2, label_noise=0.3, split="fusion")
    assert rows[:300] == skills.make_questions(skill, 300, seed=2, label_noise=0.3, split="fusion")
    assert len({row["prompt"] for row in rows}) == 2000


@pytest.mark.parametrize("skill", SOURCES)
def test_no_question_is_in_two_splits_whatever_the_seed(skill):
    asked = [
        {row["prompt"] for seed in (0, 1) for row in skills.make_questions(skill, 600, seed, split=split)}
        for split in skills.SPLITS
    ]
    assert len(asked) == 4
    assert sum(map(len, asked)) == len(set.union(*asked))


@pytest.mark.parametrize("skill", SOURCES)
def test_there_are_enough_questions_to_learn_from_and_to_hold_out(skill):
    assert len(skills.make_questions(skill, 8500, 0)) == 8500
    assert len(skills.make_questions(skill, 3000, 0, split="heldout")) == 3000


def test_the_splits_cover_every_question_once():
    assert sorted(percent for part in skills.SPLITS.values() for percent in part) == list(range(100))


def test_another_seed_asks_other_questions():
    assert skills.make_questions("sort", 50, 0) != skills.make_questions("sort", 50, 1)


def test_the_rows_are_the_same_on_every_machine():
    """Golden: sha256 of the rows as JSON, written with CPython 3.11; a change of it makes the shipped models outdated."""
    rows = [
        row for skill in SOURCES for row in skills.make_questions(skill, 200, seed=0, label_noise=0.3, split="heldout")
    ]
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
    assert digest == "643447eba2a5620b401e4d9d7ddf890f87c5abffe870c5bfd39b57d741ed2afa"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"skill": "chess"}, "Unknown skill 'chess'; choose one of sums, sort, lumi"),
        ({"split": "train"}, "Unknown split 'train'; choose one of pretrain, fusion, validation, heldout"),
        ({"label_noise": 1.5}, "between 0 and 1; got 1.5"),
        ({"count": 20_000}, r"sums has \d+ questions in split pretrain, 20000 were asked for"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_way_out(arguments, said):
    with pytest.raises(ValueError, match=said):
        skills.make_questions(**({"skill": "sums", "count": 5, "seed": 0} | arguments))


def test_the_students_skills_have_the_answers_of_the_page():
    assert skills.answer("numbers", "in words, 73348 =") == " seventy-three thousand three hundred forty-eight"
    assert skills.answer("numbers", "in words, 5000 =") == " five thousand"
    assert skills.answer("spell", "spell cup fig =") == " c u p, f i g"


def test_numbers_are_spelled_as_they_are_said():
    assert [skills.in_words(number) for number in range(200)] == [spoken(number) for number in range(200)]
