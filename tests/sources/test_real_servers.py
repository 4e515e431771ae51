"""Servers that people have, started here, against our own `transformers` backend on the same weights.

llama-cpp-python runs where FUSION_LLAMA_SERVER_PYTHON names a Python that has `llama_cpp.server` and FUSION_REAL_GGUF a file of
SmolLM2-135M-Instruct; vLLM where FUSION_VLLM_SERVER_PYTHON names a Python that has vLLM and FUSION_REAL_MODELS a folder with
smollm2-135m-instruct. Each is skipped without.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusion.data.encode import encode, encode_prompt
from fusion.data.prompt_format import PromptFormat
from fusion.models.generate import GenerationSettings
from fusion.models.loading import ModelRef, load_tokenizer
from fusion.sources import OpenAI, SourceRequest, Transformers

pytestmark = [pytest.mark.slow, pytest.mark.real]
LLAMA, VLLM = os.environ.get("FUSION_LLAMA_SERVER_PYTHON"), os.environ.get("FUSION_VLLM_SERVER_PYTHON")
GGUF, MODELS = os.environ.get("FUSION_REAL_GGUF"), os.environ.get("FUSION_REAL_MODELS")
K = 10
ANSWERS = {
    "How many legs has a spider?": "A spider has eight legs. Insects have six.",
    "Write a function that doubles a number.": "def double(x):\n    return 2 * x\n\nprint(double(21))  # 42",
    "Name a café in 北京.": "Naïve café ☕ 北京 🦤, and 𝛿x.",
    "Tell me about the moon.": "The Moon is Earth's only natural satellite. It orbits at a distance of 384,399 km on average.",
}


@contextmanager
def started(command, **environment):
    """The address of a server that answers; it is ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}/v1"
    process = subprocess.Popen(
        [*command, "--port", port],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(300):
            assert process.poll() is None, f"the server ended with status {process.returncode}: {' '.join(command)}"
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def requested(path, template):
    ref = ModelRef(str(path))
    tokenizer = load_tokenizer(ref)
    turns = {q: [{"role": "user", "content": q if template == "chat" else f"{q}\n"}] for q in ANSWERS}
    texts = [encode(tokenizer, turns[q], answer, prompt_format=PromptFormat(template)) for q, answer in ANSWERS.items()]
    prompts = [encode_prompt(tokenizer, turn, prompt_format=PromptFormat(template)).ids for turn in turns.values()]
    return SourceRequest(ref, tokenizer, K, prompt_format=PromptFormat(template)), texts, prompts


def compared(rows, expected):
    """Differences in nats of the true tokens that are known, and of the entries that both have; share of equal likeliest."""
    known = rows.gold.isfinite()
    gold = (rows.gold - expected.gold)[known].abs()
    entries, first = [], []
    for row in range(len(rows)):
        mine = dict(zip(rows.ids[row].tolist(), rows.logprobs[row].tolist(), strict=True))
        whole = dict(zip(expected.ids[row].tolist(), expected.logprobs[row].tolist(), strict=True))
        entries += [abs(mine[id] - whole[id]) for id in mine.keys() & whole.keys() - {-1}]
        if int(expected.ids[row, 0]) in mine:  # else it has a name that no token has alone
            first.append(rows.ids[row, 0] == expected.ids[row, 0])
    return gold, entries, sum(map(int, first)) / len(first)


@pytest.fixture(scope="module")
def llama():
    if not LLAMA or not GGUF:
        pytest.skip("FUSION_LLAMA_SERVER_PYTHON or FUSION_REAL_GGUF is not set")
    command = [LLAMA, "-m", "llama_cpp.server", "--model", str(Path(GGUF)), "--n_ctx", "1024", "--n_threads", "2"]
    with started(command) as url:
        yield OpenAI(url=url, model="any", prompt="text", timeout=600)


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_llama_cpp_python_gives_our_own_rows_within_what_its_kernels_explain(llama, template):
    """Its kernels round activations to eight bits.

    Measured on Q4_1: 0.05 to 0.11 nats on average, 0.75 at most; allowed: 0.2 and 1.5. Numbers of another position are several
    nats away on average.
    """
    request, texts, _ = requested(GGUF, template)
    rows, expected = llama.open(request).rows(texts), Transformers().open(request).rows(texts)
    gold, entries, first = compared(rows, expected)
    assert len(gold) > 0.5 * len(rows)
    assert len(entries) > 0.7 * expected.ids.numel()
    assert gold.mean() < 0.2
    assert gold.max() < 1.5
    assert sum(entries) / len(entries) < 0.2
    assert max(entries) < 1.5
    assert first > 0.9


def test_llama_cpp_python_writes_what_we_write(llama):
    request, _, prompts = requested(GGUF, "chat")
    settings = GenerationSettings(max_new_tokens=8)
    found = llama.open_generator(request).generate(prompts, settings)
    own = Transformers().open_generator(request).generate(prompts, settings)
    assert (
        sum(one == other for one, other in zip(found, own, strict=True)) >= len(prompts) - 1
    )  # a near tie may be broken otherwise


def test_llama_cpp_python_takes_no_ids_and_the_way_out_is_named(llama):
    request, texts, _ = requested(GGUF, "chat")
    with pytest.raises(ValueError, match="takes no token ids: set backend.prompt to text"):
        llama.model_copy(update={"prompt": "ids"}).open(request).rows(texts)


@pytest.fixture(scope="module")
def vllm():
    if not VLLM or not MODELS:
        pytest.skip("FUSION_VLLM_SERVER_PYTHON or FUSION_REAL_MODELS is not set")
    model = str(Path(MODELS, "smollm2-135m-instruct"))
    serve = [VLLM, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "smol"]
    limits = ["--dtype", "float32", "--max-model-len", "1024", "--max-logprobs", "64", "--enforce-eager"]
    with started([*serve, *limits], VLLM_CPU_KVCACHE_SPACE="1") as url:
        yield OpenAI(url=url, model="smol", timeout=600)


@pytest.mark.parametrize("settings", [
    {"logprobs_api": "prompt_logprobs"}, {"logprobs_api": "echo"}, {"logprobs_api": "echo", "prompt": "text"}
])  # fmt: skip
def test_vllm_gives_our_own_rows(vllm, settings):
    request, texts, _ = requested(Path(str(MODELS), "smollm2-135m-instruct"), "chat")
    rows, expected = (
        vllm.model_copy(update=settings).open(request).rows(texts),
        Transformers().open(request).rows(texts),
    )
    gold, entries, first = compared(rows, expected)
    assert len(gold) == len(rows)
    assert len(entries) > (0.85 if settings["logprobs_api"] == "echo" else 0.999) * expected.ids.numel()
    assert gold.max() < 1e-3
    assert max(entries) < 1e-3
    assert first == 1


def test_vllm_writes_what_we_write(vllm):
    request, _, prompts = requested(Path(str(MODELS), "smollm2-135m-instruct"), "chat")
    settings = GenerationSettings(max_new_tokens=12)
    own = Transformers().open_generator(request).generate(prompts, settings)
    assert vllm.open_generator(request).generate(prompts, settings) == own
