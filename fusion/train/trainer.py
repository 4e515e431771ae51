"""transformers' Trainer with our loss: each objective's values, weighted, averaged over the global batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from fusion import ranks
from fusion.align import Words
from fusion.head import Head, hidden_states, unwrapped
from fusion.objectives import (
    AnyObjective,
    ExampleObjective,
    MappedObjective,
    PairObjective,
    RelationObjective,
    RowObjective,
    SourcesObjective,
    SpanObjective,
    SpelledObjective,
)
from fusion.rows import LogitRows
from fusion.train.apart import Apart
from fusion.train.checkpoint import describe
from fusion.train.collate import Matched, Targets, ask
from fusion.train.engine import Engine
from fusion.train.owned import of
from fusion.train.packing import check_no_cross_talk
from fusion.train.wrapped import check, keep_whole, set_apart, shard_on_cpu


class FusionTrainer(Trainer):
    """Everything of Trainer (optimizers, schedules, checkpoints, resume, logging), with the fusion loss.

    An objective with weight 0 is not computed, so that a fusion with all weights at 0 is plain fine-tuning to the bit.
    Each mean is taken once over the global batch: its denominator counts all micro-batches and all processes.
    """

    def __init__(
        self,
        *,
        head: Head,
        objectives: Sequence[AnyObjective],
        engine: Engine | None = None,
        words: Mapping[str, Words] | None = None,
        owned: nn.ModuleDict | None = None,
        **kwargs: Any,
    ):
        self.engine = engine or Engine()
        self.owned = owned or nn.ModuleDict()
        super().__init__(**kwargs)
        self.words = {name: each.to(self.args.device) for name, each in (words or {}).items()}
        self.add_callback(_Ready(self))  # type: ignore[arg-type]
        self.head = head
        self.objectives = [objective for objective in objectives if objective.weight]
        self.apart = Apart(self.model.parameters()) if any(each.yields for each in self.objectives) else None  # type: ignore[union-attr]
        self.loss_is_scaled_for_ga = True  # our means are over the whole accumulated batch already
        self._parts: dict[str, Tensor] = {}
        self._logged_at = self.state.global_step

    def create_accelerator_and_postprocess(self) -> None:
        """Nothing but Trainer's own, save that FSDP2 means FSDP2 on a CPU too."""
        super().create_accelerator_and_postprocess()
        if self.engine.name == "fsdp2" and self.args.device.type == "cpu":
            shard_on_cpu(self.accelerator, self.args.fsdp_plugin_args or {})
            self.is_fsdp_enabled = True

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's own; the settings of its groups (weight decay or none) are kept in mind."""
        optimizer = super().create_optimizer(*args, **kwargs)
        groups = [group for group in optimizer.param_groups if group["params"]]
        self._groups = [{k: v for k, v in group.items() if k not in ("params", "lr", "initial_lr")} for group in groups]
        return optimizer

    def ready(self) -> None:
        """Called when the model is wrapped and its checkpoint loaded. Raises where either is not what it should be."""
        check(self.engine, self.model_wrapped)
        keep_whole(self.engine, self.model_wrapped, self.head.module)
        if self.engine.stage == 3:
            set_apart(self.optimizer, self._groups)
        mixed = self.args.bf16 or self.args.fp16  # then a float32 model computes in 16 bits
        self.head.check(self.model_wrapped, 0.1 if mixed else None)
        if getattr(self.data_collator, "line", None) is not None:
            check_no_cross_talk(self.model_wrapped, 0.05 if mixed else None)
        self._logged_at = self.state.global_step

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of all terms. `num_items_in_batch` are the denominators that `get_batch_samples` counted."""
        collator: Any = self.data_collator
        targets: Targets = collator.at_step(inputs["targets"], self.state.global_step).to(self.args.device)
        counts: dict[str, int] | dict[str, float] = num_items_in_batch or targets.counts()
        hidden = hidden_states(model, **{name: value for name, value in inputs.items() if name != "targets"})
        total = hidden.new_zeros((), dtype=torch.float32) + self._head_takes_part()
        yielding = torch.zeros_like(total)
        for name, objective, mean in self.terms(hidden, targets, counts):
            if objective.yields:
                yielding = yielding + objective.weight * mean
            else:
                total = total + objective.weight * mean
            self._note(f"loss/{name}", mean.detach())
        for name, source in targets.sources.items():
            self._note(f"match/{name}", len(source.pairs) / counts["row"])
            self._note(f"mapped/{name}", len(source.mapped) / counts["row"])
            self._note(f"weight/{name}", source.weight.sum() / max(1, counts[f"pair/{name}"]))
        # gradients are averaged over processes, and the denominators above already count all of them
        loss = total * self.accelerator.num_processes
        if any(objective.yields for objective in self.objectives):
            assert self.apart is not None
            scale = 1.0 if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()  # of fp16
            loss = loss + self.apart.add(yielding * self.accelerator.num_processes, scale)
        return (loss, {}) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Trainer's own; the last of a step joins the gradients that were kept apart to the others."""
        loss = super().training_step(*args, **kwargs)
        if self.apart and self.accelerator.sync_gradients:
            self.apart.join(lambda gradient: self.accelerator.reduce(gradient, "mean"))  # type: ignore[arg-type, return-value]
        return loss

    def terms(
        self, hidden: Tensor, targets: Targets, counts: dict[str, int] | dict[str, float]
    ) -> Iterator[tuple[str, AnyObjective, Tensor]]:
        """Name, objective, and share of the global mean of every term: one for each objective and source it looks at alone.

        `hidden` is [B, T, D]. A term that has nothing to average over (no match in the whole batch) is 0.
        """
        pivot, asked = self._pivot_rows(hidden, targets)
        objectives = [objective.at_step(self.state.global_step) for objective in self.objectives]
        left = torch.ones(len(pivot), device=pivot.gold.device)
        against = {
            number: list(self._against(number, objective, pivot, asked, targets, counts, left))
            for number, objective in enumerate(objectives)
            if not isinstance(objective, RowObjective)
        }
        for number, objective in enumerate(objectives):
            if isinstance(objective, RowObjective):
                values = objective(pivot)
                values = values * left.clamp(min=0) if objective.rest else values
                yield objective.kind, objective, values.sum() / counts["row"]
            for name, mean in against.get(number, []):
                yield name, objective, mean

    def _against(
        self,
        number: int,
        objective: Any,
        pivot: LogitRows,
        asked: dict[str, Tensor],
        targets: Targets,
        counts: dict[str, int] | dict[str, float],
        left: Tensor,
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and mean of a term against each source, or all at once; what it counts at each row is taken from `left`."""
        kind = objective.kind
        if isinstance(objective, SourcesObjective):
            total = pivot.gold.sum() * 0
            if targets.sources:
                values, at, weight = _taught(objective, pivot, asked, targets)
                total, left[at] = values.sum(), left[at] - objective.weight * weight
            yield kind, total / max(1, counts["sources"])
            return
        for name, source in targets.sources.items():
            unit = "example" if objective.unit in ("example", "relation") else f"{objective.unit}/{name}"
            words, module = self.words.get(name), of(self.owned, number, name)
            values, weight = _compared(objective, pivot, asked[name], source, targets.examples, words, module)
            left -= objective.weight * _at_rows(objective, source, weight, len(pivot))
            yield f"{kind}/{name}", (weight * values).sum() / max(1, counts[unit])

    def _pivot_rows(self, hidden: Tensor, targets: Targets) -> tuple[LogitRows, dict[str, Tensor]]:
        """The pivot's rows, and what it says of each source's ids: [N, K] by source."""
        entries = [_entries(objective) for objective in self.objectives]
        k = self.head.vocabulary if None in entries else max((e for e in entries if e is not None), default=0)
        mapped = any(objective.unit in ("mapped", "sources") for objective in self.objectives)
        moments = any(objective.reads & {"mean", "std"} for objective in self.objectives)
        chosen = hidden.flatten(0, 1)[targets.at]
        rows, asked = self.head.rows(chosen, targets.about, k, ask(targets) if mapped else None, moments)
        if any("hidden" in objective.reads for objective in self.objectives):
            rows = dataclasses.replace(rows, hidden=chosen)
        widths = [source.mapped.k if mapped else 0 for source in targets.sources.values()]
        return rows, dict(zip(targets.sources, asked.split(widths, dim=1), strict=True)) if widths else {}

    def _head_takes_part(self) -> Tensor | float:
        """0, through the head's weights where no term looks at logits: DDP waits for a gradient of every weight."""
        if not all("hidden" in objective.reads for objective in self.objectives):
            return 0.0
        return torch.stack([weight.sum() for weight in self.head.module.parameters()]).sum().float() * 0

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """The denominators of this step's means, over all its micro-batches and processes."""
        every = [batch["targets"].counts() for batch in batch_samples]
        if not every:
            return None
        sums = torch.tensor([float(sum(counts[name] for counts in every)) for name in every[0]], device=device)
        sums: Any = self.accelerator.reduce(sums, "sum")
        return dict(zip(every[0], sums.tolist(), strict=True))

    def _note(self, name: str, value: Tensor | float) -> None:
        self._parts[name] = self._parts.get(name, torch.zeros((), device=self.args.device)) + value

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model as safetensors, whichever engine holds it. Checkpoints of FSDP2 keep their shards apart."""
        if self.is_fsdp_enabled and not _internal_call:
            whole: Any = self.accelerator.get_state_dict(self.model)
            shared = getattr(unwrapped(self.model), "all_tied_weights_keys", {})
            self._save(output_dir, state_dict={name: weight for name, weight in whole.items() if name not in shared})
        else:
            super().save_model(output_dir, _internal_call)

    def _save_rng_state(self, output_dir: str) -> None:
        """The last share of a checkpoint: when Trainer marks it as whole after this, all processes have written theirs."""
        super()._save_rng_state(output_dir)
        if ranks.is_main():
            describe(Path(output_dir), self.engine)
        ranks.barrier()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each part's mean over the steps since the last log."""
        steps = self.state.global_step - self._logged_at
        if self._parts and steps > 0:
            parts: Any = self.accelerator.reduce(torch.stack(list(self._parts.values())), "sum")
            logs = logs | dict(zip(self._parts, (parts / steps).tolist(), strict=True))
            self._parts, self._logged_at = {}, self.state.global_step
        super().log(logs, start_time)


class _Ready(TrainerCallback):
    """Tells the trainer that its model is wrapped."""

    def __init__(self, trainer: FusionTrainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step."""
        self.trainer.ready()


def _entries(objective: AnyObjective) -> int | None:
    """How many of the pivot's largest entries a term reads."""
    if isinstance(objective, SpelledObjective):
        return objective.candidates
    selects = isinstance(objective, PairObjective | MappedObjective) and objective.select is not None
    return objective.entries if objective.entries is None else max(objective.entries, int(selects))


def _compared(
    objective: PairObjective
    | SpelledObjective
    | MappedObjective
    | SpanObjective
    | RelationObjective
    | ExampleObjective,
    pivot: LogitRows,
    asked: Tensor,
    source: Matched,
    examples: int,
    words: Words | None,
    module: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """Values of one objective against one source, with its module where it owns one, and how much each counts."""
    own: dict[str, Any] = {} if module is None else {"module": module}
    if isinstance(objective, ExampleObjective):
        own |= {"other": source.other} if objective.reads_other_answers else {}
        return objective(pivot, source.rows, examples, **own), _mean_by_example(source, pivot, examples)
    if isinstance(objective, SpanObjective):
        text = source.stretches
        mine, theirs = text.sums(pivot.gold, text.pivot), text.sums(source.rows.gold, text.source)
        return objective(mine, theirs), source.weight[text.at]
    if isinstance(objective, RelationObjective):
        mine, theirs = pivot.select(source.pairs.pivot), source.rows.select(source.pairs.source)
        return objective(mine, theirs, examples, **own), _mean_by_example(source, pivot, examples)
    if isinstance(objective, MappedObjective):
        largest, theirs, weight = pivot.select(source.at), source.mapped, source.weight[source.comparable]
        mine = dataclasses.replace(largest, logprobs=asked[source.at], ids=theirs.ids)
    else:
        mine, theirs, weight = pivot.select(source.pairs.pivot), source.rows.select(source.pairs.source), source.weight
        largest = mine
    chosen = 1 if objective.select is None else objective.select(largest, theirs)
    if isinstance(objective, SpelledObjective):
        assert words is not None
        ids = mine.ids[:, : objective.candidates], theirs.ids[:, : objective.entries]
        return objective(mine, theirs, words.distance(*ids)), weight * chosen
    return objective(mine, theirs, **own), weight * chosen


def _at_rows(objective: AnyObjective, source: Matched, weight: Tensor, rows: int) -> Tensor:
    """What each value counts, at the pivot's rows that it is about; 0 for terms on whole examples."""
    found = weight.new_zeros(rows)
    if isinstance(objective, SpanObjective):
        inside = source.stretches.pivot >= 0
        found[inside] = weight[source.stretches.pivot[inside]]
    elif isinstance(objective, MappedObjective):
        found[source.at] = weight
    elif isinstance(objective, PairObjective | SpelledObjective):
        found[source.pairs.pivot] = weight
    return found


def _taught(
    objective: SourcesObjective, pivot: LogitRows, asked: dict[str, Tensor], targets: Targets
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of an objective that looks at all sources at once, weighted, at the rows where there is any; where, how much."""
    found = {name: source.everywhere(targets.about) for name, source in targets.sources.items()}
    total = torch.stack([weight for _, weight in found.values()])
    at = targets.taught[total.sum(0)[targets.taught] > 0]
    rows = {name: theirs.select(at) for name, (theirs, _) in found.items()}
    ids = torch.cat([theirs.ids for theirs in rows.values()], dim=1)
    mine = dataclasses.replace(pivot.select(at), logprobs=torch.cat(list(asked.values()), dim=1)[at], ids=ids)
    sums = total[:, at].sum(0)
    return objective(mine, rows, total[:, at] / sums) * sums, at, sums


def _mean_by_example(source: Matched, pivot: LogitRows, examples: int) -> Tensor:
    """The mean weight of each example's pairs, 0 where it has none."""
    example = pivot.example[source.pairs.pivot]
    sums = source.weight.new_zeros(examples).index_add(0, example, source.weight)
    return sums / torch.bincount(example, minlength=examples).clamp(min=1)
