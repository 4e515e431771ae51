"""IFEval's check of a language: langdetect draws at random, so that an answer in two languages gets either verdict."""

import os
import subprocess
import sys

import langdetect
import pytest

from fusion_eval.suites.sentences import nltk_tokenizer
from fusion_eval.suites.tasks import load_subtasks
from tests.helpers import benchmark_files, lm_eval_verdicts

MIXED = "Der Bus ist late again my friend"
DOC = {
    "key": 1, "prompt": "Antworte auf Deutsch.", "instruction_id_list": ["language:response_language"],
    "kwargs": [{"language": "de"}],
}  # fmt: skip
PROCESS = (
    "import sys, langdetect\nfrom fusion_eval.suites.language_check import fix_seed\n"
    "if sys.argv[1:] != ['unseeded']: fix_seed()\n"
    f"print([langdetect.detect(text) for text in [{MIXED!r}, 'Bonjour, hello', {MIXED!r}]])"
)


@pytest.fixture
def unseeded():
    langdetect.DetectorFactory.seed = None
    yield
    langdetect.DetectorFactory.seed = None


def verdicts(subtask, times):
    with nltk_tokenizer():
        return {lm_eval_verdicts.score(subtask, DOC, MIXED) for _ in range(times)}


def test_a_loaded_task_gives_an_answer_in_two_languages_one_verdict(tmp_path, unseeded):
    (subtask,) = load_subtasks("ifeval", benchmark_files.benchmarks(tmp_path))
    assert len(verdicts(subtask, 20)) == 1
    langdetect.DetectorFactory.seed = None
    assert len(verdicts(subtask, 40)) == 2  # so that the line above can fail


def languages(process, *arguments):
    environment = os.environ | {"PYTHONHASHSEED": str(process)}
    return subprocess.run(
        [sys.executable, "-c", PROCESS, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_the_languages_found_are_the_same_in_twenty_processes():
    assert len({languages(process) for process in range(20)}) == 1
    assert len({languages(process, "unseeded") for process in range(6)}) > 1
