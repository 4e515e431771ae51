"""A training in several processes of which one gets rows without numbers; torchrun starts this with a folder and an engine."""

import sys
from pathlib import Path

from fusion.cli import boundary
from fusion.runtime import distributed
from fusion.training import TrainingCollator
from tests.helpers import spread


def main(folder: Path, engine: str) -> int:
    """Train; rank 1 reads NaN from its second step on. Print what a user is told and return the exit status."""
    collate, calls = TrainingCollator.__call__, []

    def spoiled(self, numbers):
        batch = collate(self, numbers)
        calls.append(numbers)
        if distributed.rank() == 1 and len(calls) > 1:
            batch["targets"].sources["neox"].weight.fill_(float("nan"))
        return batch

    TrainingCollator.__call__ = spoiled  # type: ignore[method-assign]
    try:
        spread.train(folder, f"broken-{engine}", engine={"kind": engine}, training={"per_device_train_batch_size": 2})
    except ValueError as error:
        boundary.tell(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
