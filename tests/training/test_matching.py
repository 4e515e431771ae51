"""What a matcher learns of real pairs: those that `dtw` matched at unequal bytes, which nobody tells it, get lower scores."""

import pytest
import torch
from safetensors.torch import load_file

from fusion import pipeline
from fusion.cache import Cache
from fusion.config import loading
from fusion.core.rows import LogitRows
from fusion.models.head import hidden_states
from fusion.models.loading import load_model
from fusion.objectives.modules.matcher import matched
from fusion.stages import train
from fusion.stages.context import RunContext
from fusion.training import TrainingCollator, auxiliary_modules

STEPS = 150
SETTINGS = [
    *(f"data.train.{i}.limit=300" for i in range(3)),
    *(f"data.heldout.{i}.limit=4" for i in range(3)),
    f"training.max_steps={STEPS}",
    "training.save_strategy=steps",
    f"training.save_steps={STEPS}",
    "baseline=false",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The recipe's run so far, its model with the matchers in it, and what training sees of its examples."""
    config = loading.load("matcher", [*SETTINGS, f"runs={tmp_path_factory.mktemp('matching')}"])
    place, context = pipeline.run(config, until="train"), RunContext(config)
    sources = [train.training_source(context, s.name, Cache(place / "cache" / s.name)) for s in config.sources]
    model, modules = (
        load_model(config.pivot.ref, "float32"),
        auxiliary_modules.build_modules(config.objectives, sources, 128, dtype="float32", seed=0),
    )
    auxiliary_modules.attach_modules(model, modules)
    model.load_state_dict(load_file(place / f"train/unified/checkpoint-{STEPS}/model.safetensors"), strict=False)
    collator = TrainingCollator(
        context.train_examples, context.encoded("pivot"), sources, context.weighting, alignment=config.alignment
    )
    return model, modules, collator


@pytest.mark.slow
@pytest.mark.parametrize("source", ["sums", "sort", "lumi"])
@torch.no_grad()
def test_a_pair_of_unequal_bytes_is_mostly_scored_below_one_of_equal_bytes(trained, source):
    model, modules, collator = trained
    scores, right = [], []
    for start in range(0, 900, 60):
        batch = collator(range(start, start + 60))
        targets = batch["targets"]
        hidden = hidden_states(model, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        theirs = targets.sources[source]
        at, zero = targets.positions.select(theirs.pivot_index), torch.zeros(len(theirs.pivot_index))
        none = {"logprobs": zero[:, None][:, :0], "ids": zero.long()[:, None][:, :0]}
        mine = LogitRows.at(at, gold=zero, mean=zero, std=zero, **none)  # the matcher looks at where rows are
        odds = auxiliary_modules.modules_of(modules, 1, [source])[source](
            hidden.flatten(0, 1)[targets.hidden_index][theirs.pivot_index], theirs.mapped.hidden, mine
        )
        scores.append(matched(odds, mine)[0])
        right.append(theirs.rows.prefix[theirs.pairs.source[theirs.mapped_pair_index]] == mine.prefix)
    scores, right = torch.cat(scores), torch.cat(right)
    assert (~right).sum() > 200
    above = (scores[right][:, None] > scores[~right][None]).float().mean().item()  # the area under the ROC curve
    print(f"{source}: {int(right.sum())} pairs of equal bytes, {int((~right).sum())} of others, area {above:.2f}")
    assert above > 0.7
