"""The excess over the truth: 0 for the truth itself, and what was added to it; of runs and of studies."""

import math

import pytest

from fusion.quickstart import excess, skills
from fusion_eval.results import Result, Sample

ROWS = skills.make_questions("tales", 20, 0, split="heldout")


def save(folder, model, bits):
    """A result of a model that needs so many bits a byte more than the truth."""
    samples = [
        Sample(
            id=str(n), domain="tales", bytes=len(row["response"]), prompt=row["prompt"], target=row["response"],
            nll=len(row["response"]) * bits * math.log(2) - skills.tale_logprob(row["prompt"], row["response"]),
        )
        for n, row in enumerate(ROWS)
    ]  # fmt: skip
    file = folder / "eval" / model / "heldout.json"
    file.parent.mkdir(parents=True)
    Result(model=model, suite="heldout", path="", provenance={}, samples=samples).save(file)


def test_the_excess_is_what_a_model_needs_beyond_the_truth(tmp_path, capsys):
    for model, bits in {"fine-tuned": 0.4, "truth": 0.0, "unified": 0.1}.items():
        save(tmp_path, model, bits)
    found = excess.find_results(tmp_path)
    assert {name: excess.excess(each).value for name, each in found.items()} == pytest.approx(
        {"fine-tuned": 0.4, "truth": 0.0, "unified": 0.1}
    )
    excess.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert "| unified | 1 | 0.100 (0.100 to 0.100) | 0.100 | 75% |" in lines
    assert lines[-1] == "n: 20 held-out tales."


def test_of_a_study_each_arm_is_the_mean_of_its_seeds_and_the_worst_is_named(tmp_path):
    for seed, bits in enumerate([0.1, 0.3]):
        save(tmp_path / "fusion" / f"seed-{seed}", "unified", bits)
        save(tmp_path / "fine_tuned" / f"setting-2-seed-{seed}", "unified", 0.5)
    save(tmp_path / "fine_tuned" / "trial-0-seed-0", "unified", 9.0)
    save(tmp_path / "fine_tuned" / "original-models", "storyteller", 0.01)
    found = excess.find_results(tmp_path)
    assert {name: len(each) for name, each in found.items()} == {"storyteller": 1, "fine_tuned": 2, "fusion": 2}
    (line,) = [line for line in excess.excess_table(found) if line.startswith("| fusion")]
    assert line.startswith("| fusion | 2 | 0.200 (")
    assert line.endswith("| 0.300 | 60% |")


def test_a_folder_without_results_and_a_result_without_tales_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no eval/\*/heldout.json"):
        excess.find_results(tmp_path)
    save(tmp_path, "pivot", 0.1)
    (result,) = excess.find_results(tmp_path)["pivot"]
    sums = [sample.model_copy(update={"domain": "sums"}) for sample in result.samples]
    with pytest.raises(ValueError, match="pivot was not measured on the domain tales"):
        excess.excess([result.model_copy(update={"samples": sums})])
