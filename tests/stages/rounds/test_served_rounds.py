"""A source behind a server reads what the pivot writes: the same rounds as with its weights here."""

import shutil

import torch
from safetensors.torch import load_file

from fusion import pipeline
from fusion.config import loading
from tests.helpers import runs, serving

# plain gradient descent: Adam turns a rounding of a gradient near 0 into a whole step
ROUNDS = {
    "count": 2, "prompts": 4, "num_generations": 2, "max_completion_length": 8, "replay": 0.5,
    "objectives": [{"kind": "policy_gradient"}, {"kind": "forward_kl"}, {"kind": "cross_entropy", "part": "replay"}],
    "training": {"max_steps": 2, "save_strategy": "no", "learning_rate": 1e-2, "optim": "sgd"},
}  # fmt: skip


def test_rounds_with_a_served_source_are_those_with_its_weights(tmp_path):
    raw = runs.raw(
        tmp_path, strategies=["unified"], baseline=False, objectives=[{"kind": "cross_entropy"}], rounds=ROUNDS,
        extract={"top_k": 10, "value_format": "float32"},
    )  # fmt: skip
    raw["sources"] = raw["sources"][1:]
    here = pipeline.run(loading.parse(raw | {"name": "here"}, "test"), "rounds")
    alone = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(tmp_path / "qwen", tmp_path / "tokenizer alone", ignore=alone)
    with serving.serve(serving.Server(tmp_path / "qwen")) as url:
        backend = {"kind": "openai", "url": url, "model": "big", "logprobs_api": "prompt_logprobs"}
        source = {"name": "qwen", "path": str(tmp_path / "tokenizer alone"), "backend": backend}
        served = pipeline.run(loading.parse(raw | {"name": "served", "sources": [source]}, "test"), "rounds")
    for number in (1, 2):
        texts = [(run / f"rounds/{number}/texts/texts.jsonl").read_text() for run in (here, served)]
        assert texts[0] == texts[1]
        weights = [load_file(run / f"rounds/{number}/train/unified/model/model.safetensors") for run in (here, served)]
        for name in weights[0]:
            torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=1e-4)
