"""What the tests of evaluation share: benchmark files and two models, made once a run of the tests."""

import pytest

from tests.helpers import benchmark_files


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return benchmark_files.benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return benchmark_files.roomy("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def neox(tmp_path_factory):
    return benchmark_files.roomy("gpt_neox", tmp_path_factory.mktemp("models") / "neox", seed=1)
