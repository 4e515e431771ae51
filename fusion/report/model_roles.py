"""What each model of a run is, in words for someone who sees its name for the first time."""

from __future__ import annotations

from fusion.report.run_contents import RunContents
from fusion.runtime.run_file import RoundsFacts, RunFile

STRATEGIES = {
    "unified": "the pivot after one training on the texts and on the predictions of all sources at once",
    "pairwise": "the pivot trained once for each source, and the weights of these trainings merged into one model",
    "preferences": "the model of the step before, which then learned to find right answers likelier than wrong ones",
}
"""What each way to fuse makes."""
ON_TEXTS_ALONE = {
    "unified": "the pivot after one training on the texts alone",
    "pairwise": "the pivot trained on the texts alone, once for each source, and the weights of these trainings merged",
}
"""The same where no term of the loss reads what sources predict."""
ROUNDS = "rounds"
"""What goes on from one of them in rounds."""
LABEL_LENGTH, NARROW_LABEL = 24, 13
"""Letters of a model's name in a figure, on a page and on a phone."""


def role(model: str, run: RunFile) -> str:
    """What a model is to the run: `fused`, `fine-tuned`, `pivot`, `source`; empty for one that run.json does not know."""
    if model == run.result or model in STRATEGIES:
        return "fused"
    if model == run.baseline:
        return "fine-tuned"
    return run.models[model].role if model in run.models else ""


def label(model: str, run: RunFile, letters: int = LABEL_LENGTH) -> str:
    """The name of a model in a figure, with its role, so that a source is not taken for the domain it is named after.

    The middle of a long name is left out; the tables hold the whole.
    """
    name, word = _shortened(model, letters), role(model, run)
    return f"{name} ({word})" if word and word != model else name


def evaluated_models(contents: RunContents) -> list[str]:
    """Names of the models that a suite measured, in the order of its table."""
    return list(dict.fromkeys(result.model for results in contents.results.values() for result in results))


def explanations(models: list[str], run: RunFile) -> list[tuple[str, str]]:
    """Name and one sentence for each model that the reader has to know: fused ones, fine-tuned, pivot and sources."""
    found = [(model, _fused(model, run)) for model in models if role(model, run) == "fused"]
    if run.responses and found:
        found[0] = found[0][0], found[0][1] + _answered(run)
    if run.baseline in models:
        # where sources answered, it learns the data's own responses and not their answers, if there are any
        count = sum(run.data.fine_tuned.values()) if run.data else 0
        theirs = f"the {count:,} responses that the data have" if count else "the responses that the data have"
        same = not run.responses or (run.data is not None and not count)
        texts = "the same texts" if same else theirs
        words = f"the pivot after plain training on {texts}, without any source: what fusing has to beat."
        found.append((str(run.baseline), words))
    found += [(m, "the model that is trained, as it was before: untouched.") for m in run.names_by_role("pivot")]
    if sources := run.names_by_role("source"):
        found.append((", ".join(sources), f"the {_sources(len(sources))} from; fusing leaves them as they are."))
    return found


def _fused(model: str, run: RunFile) -> str:
    words = _ways(run).get(model, "the fused model, made of the pivot and its sources")
    if model == ROUNDS and run.rounds is not None:
        words = _rounds(_ways(run)[run.rounds.start], run.rounds)
    return f"{words}{'; it is the result of this run, in fused/' if model == run.result else ''}."


def _ways(run: RunFile) -> dict[str, str]:
    return STRATEGIES if run.learns_predictions else STRATEGIES | ON_TEXTS_ALONE


def _answered(run: RunFile) -> str:
    """What it learned of sources' answers, which plain fine-tuning did not see."""
    who = "It" if run.rounds is None else "Its first training"
    also = "" if run.learns_predictions else ", and none of their predictions"
    return f" {who} learned {sum(each.chosen for each in run.responses):,} answers that sources wrote{also}."


def _rounds(start: str, rounds: RoundsFacts) -> str:
    if rounds.kept == 0:
        return f"{start}; {_many(rounds.count)} followed, of which none was kept"
    learned = "its sources read that, and it learned from it" if rounds.sources_read else "and learned from that"
    return f"{start}, and then {_many(rounds.kept)} in which it wrote{',' * rounds.sources_read} {learned}"


def _many(rounds: int) -> str:
    return "one round" if rounds == 1 else f"{rounds} rounds"


def _sources(count: int) -> str:
    return "source, the model that the pivot learns" if count == 1 else "sources, the models that the pivot learns"


def _shortened(name: str, letters: int) -> str:
    half = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[:half]}…{name[-half:]}"
