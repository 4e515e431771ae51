"""Scores of right, wrong and malformed answers of every benchmark; and against lm-eval's own metric where it has one."""

import pytest
from lm_eval.tasks.drop import utils as stock_drop
from lm_eval.tasks.minerva_math import utils as stock_math

from fusion.grading import answers
from fusion_eval.suites import scoring
from fusion_eval.suites.tasks import load_subtasks

GSM8K = {"answer": "9 * 2 = <<9*2=18>>18\n#### 18"}
MATH = {"solution": r"Thus $x = \boxed{\frac{1}{2}}$."}
DROP = {"answers": [["67.2"], ["two thirds"]]}
LETTERS = {"choices": {"text": ["a", "b", "c", "d"], "label": ["1", "2", "3", "4"]}, "answerKey": "2"}
RIGHT, WRONG = 1.0, 0.0


@pytest.mark.parametrize(
    ("extract", "score", "doc", "text", "right"),
    [
        ("number", "gsm8k", GSM8K, r"So she earns \boxed{18}.", RIGHT),
        ("number", "gsm8k", GSM8K, r"\boxed{\$18.00} for 20 eggs", RIGHT),
        ("number", "gsm8k", GSM8K, "In all it is 18.", RIGHT),
        ("number", "gsm8k", GSM8K, r"\boxed{19}, not 18", WRONG),
        ("number", "gsm8k", GSM8K, r"\boxed{many}", WRONG),
        ("number", "gsm8k", GSM8K, "eighteen", RIGHT),
        ("number", "gsm8k", {"answer": "#### 1,234"}, "It costs $1,234.", RIGHT),
        ("number", "gsm8k", {"answer": "#### -3"}, r"\boxed{-3}", RIGHT),
        ("formula", "math", MATH, r"\boxed{\frac12}", RIGHT),
        ("formula", "math", MATH, r"\boxed{0.5}", RIGHT),
        ("formula", "math", MATH, r"\boxed{\dfrac{2}{4}}", RIGHT),
        ("formula", "math", MATH, r"\boxed{2}", WRONG),
        ("formula", "math", MATH, r"\boxed{}", WRONG),
        ("formula", "math", MATH, r"It is \frac12.", RIGHT),
        ("formula", "math", {"solution": r"\boxed{(1, 2)}"}, r"\boxed{(1,2)}", RIGHT),
        ("phrase", "bbh", {"target": "(B)"}, "Let me see. So the answer is (B).", RIGHT),
        ("phrase", "bbh", {"target": "(B)"}, "So the answer is (B) red", RIGHT),
        ("phrase", "bbh", {"target": "False"}, "the answer is **false**.", RIGHT),
        ("phrase", "bbh", {"target": "] ] )"}, "So the answer is ] ] ).", RIGHT),
        ("phrase", "bbh", {"target": "(B)"}, "So the answer is (A). Not (B).", WRONG),
        ("phrase", "bbh", {"target": "(B)"}, "(B)", RIGHT),
        ("phrase", "bbh", {"target": "(B)"}, "", WRONG),
        ("option", "mmlu", {"answer": 1}, "Thus the answer is B.", RIGHT),
        ("option", "mmlu", {"answer": 1}, "**Step 1** A is wrong.\nThe answer is (B).", RIGHT),
        ("option", "mmlu", {"answer": 1}, "The answer is [B].", RIGHT),
        ("option", "mmlu", {"answer": 1}, "The answer is C, not B.", WRONG),
        ("option", "mmlu", {"answer": 0}, "A physicist would know.", WRONG),
        ("option", "mmlu", {"answer": 1}, "", WRONG),
        ("option", "arc", LETTERS, "B. Because fire is hot.", RIGHT),
        ("option", "arc", LETTERS, "(b)", RIGHT),
        ("option", "arc", LETTERS, "C", WRONG),
        ("option", "arc", LETTERS, "E", WRONG),  # there is no fifth choice
        ("option", "hellaswag", {"gold": 3}, "D", RIGHT),
        ("option", "hellaswag", {"gold": 3}, "Answer: D\nA man sings.", RIGHT),
        ("option", "hellaswag", {"gold": 3}, "none of them", WRONG),
        ("span", "drop", DROP, "100 - 32.8 = 67.2\nAnswer: 67.2 percent", RIGHT),
        ("span", "drop", DROP, "Answer: the two thirds.", RIGHT),
        ("span", "drop", DROP, "Answer: 167.2", WRONG),
        ("span", "drop", DROP, "67.2", RIGHT),
        ("span", "drop", DROP, "Answer:", WRONG),
    ],
)  # fmt: skip
def test_a_written_answer_is_judged(extract, score, doc, text, right):
    found = getattr(scoring, f"extract_{extract}")([[text]], [doc])
    assert getattr(scoring, score)(doc, found[0]) == {"exact_match": right}


@pytest.mark.parametrize(
    ("kind", "truth", "text", "right"),
    [
        ("bool", "true", "The answer is True.", True),
        ("bool", "false", "The answer is no.", True),
        ("bool", "true", "The answer is False.", False),
        ("bool", "true", "The answer is 1.", False),
        ("integer", "1200", "The answer is 1,200.", True),
        ("integer", "1200", "The answer is n = 1200.", True),
        ("integer", "1200", "The answer is 1201.", False),
        ("float", "3.0", "The answer is 3.05.", True),  # within 4%
        ("float", "3.0", "The answer is 3.2.", False),
        ("float", "0.333", r"The answer is \frac{1}{3}.", True),
        ("float", "0.25", "The answer is 25%.", True),
        ("float", "1200.0", r"The answer is 1.2 \times 10^{3}.", True),
        ("float", "-1.5", "The answer is -1.5 J.", True),
        ("list of integer", "[4, 1, 2]", "The answer is [4, 1, 2].", True),
        ("list of integer", "[4, 1, 2]", "The answer is (4,1,2).", True),
        ("list of integer", "[4, 1, 2]", "The answer is [1, 2, 4].", False),
        ("list of integer", "[4, 1, 2]", "The answer is [4, 1].", False),
        ("list of float", "[0.5, 2.0]", "The answer is [1/2, 2].", True),
        ("option", '"(a)"', "The answer is (a).", True),
        ("option", '"(a)"', "The answer is (b).", False),
        ("integer", "3", "I think it is 3", True),
        ("float", "3.0", "The answer is unknown.", False),
    ],
)  # fmt: skip
def test_a_value_of_theoremqa_is_judged_by_its_type(kind, truth, text, right):
    doc = {"answer": truth, "answer_type": kind}
    found = scoring.extract_value([[text]], [doc])
    assert scoring.theoremqa(doc, found[0]) == {"exact_match": float(right)}


def stock(name, data, text):
    """What lm-eval's own task makes of a text: its filters, then its measure."""
    (subtask, *_) = load_subtasks(name, data)
    task, doc = subtask.task, subtask.task.eval_docs[0]
    facts = {"metadata": (name, 0, 1), "apply_chat_template": False, "chat_template": None}
    request = task.construct_requests(doc, task.doc_to_text(doc), doc_id=0, **facts)
    request.resps.append(text)
    task._instances = [request]
    task.apply_filters()
    wanted = "flexible-extract" if name == "gsm8k-stock" else next(iter(request.filtered_resps))
    return task.process_results(doc, [request.filtered_resps[wanted]])


@pytest.mark.parametrize("text", ["It is 0.\n#### 0", "So 3 - 3 = 0", "#### 1", "nothing", "0 and then 5", "$0.", ""])
def test_numbers_agree_with_lm_evals_gsm8k(data, text):
    doc = {"answer": "It is <<0+0=0>>.\n#### 0"}
    mine = scoring.gsm8k(doc, scoring.extract_number([[text]], [doc])[0])
    assert mine["exact_match"] == stock("gsm8k-stock", data, text)["exact_match"]


@pytest.mark.parametrize("said", ["yes", "no", "(A)", "yes and no"])
def test_phrases_agree_with_lm_evals_bbh(data, said):
    text = f"Think, think. So the answer is {said}."
    mine = scoring.bbh({"target": "yes"}, scoring.extract_phrase([[text]], [{}])[0])
    assert mine["exact_match"] == stock("bbh-stock", data, text)["exact_match"]


@pytest.mark.parametrize("said", [r"\frac{1}{2}", "0.5", "2", r"\sqrt{3}", "x"])
def test_mathematics_agrees_with_lm_evals_verification(said):
    doc = {"problem": "", "solution": r"So $\boxed{\frac{1}{2}}$.", "answer": r"\frac{1}{2}"}
    theirs = stock_math.process_results(doc, [rf"It is $\boxed{{{said}}}$."])["math_verify"]
    assert scoring.math(doc, [said])["exact_match"] == theirs


@pytest.mark.parametrize("said", ["67.2", "two thirds", "68", "Two Thirds."])
def test_words_agree_with_lm_evals_drop_where_the_answer_is_alone(said):
    theirs = stock_drop.process_results({"answers": [("67.2",), ("two thirds",)]}, [said])["em"]
    assert float(answers.same_words(said, ["67.2", "two thirds"])) == theirs
