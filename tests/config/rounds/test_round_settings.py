"""What a round takes of the run's TrainingArguments, and what it has of its own."""

from fusion.config import Rounds

FIRST = {"learning_rate": 2e-4, "max_steps": 5, "warmup_steps": 1, "per_device_train_batch_size": 4}


def rounds(**training):
    return Rounds.model_validate({"objectives": [{"kind": "forward_kl"}], "training": training})


def test_length_warmup_and_learning_rate_are_the_first_trainings_alone():
    assert rounds().arguments(FIRST) == {"per_device_train_batch_size": 4, "learning_rate": 1e-5}


def test_what_a_round_says_itself_counts():
    own = {"learning_rate": 3e-6, "max_steps": 7, "per_device_train_batch_size": 2}
    assert rounds(**own).arguments(FIRST) == own
