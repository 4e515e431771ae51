"""Commands on a run: its stages, its plan, where it runs, its report, and a look inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fusion.cli.app import ConfigFile, Set, app


@app.command()
def run(config: ConfigFile, override: Set = []) -> None:  # noqa: B006  (typer reads the default, nothing writes to it)
    """Do everything: extract, train, merge, evaluate, report. What is done is not done again."""
    until(config, override, "report")


@app.command()
def plan(
    config: ConfigFile,
    override: Set = [],  # noqa: B006
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs of all machines together; sets plan.gpus.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Kind of GPU, such as h800; sets plan.gpu.")] = None,
    mfu: Annotated[
        float | None,
        typer.Option("--mfu", help="Model FLOPs utilisation, a share of the peak; sets plan.mfu, 0.4 by default."),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Read the data even where plan.tokens is given.")] = False,
) -> None:
    """Estimate what a run will take, and what would not fit, before anything runs; no weights are read."""
    from fusion.config import loading
    from fusion.plan import describe_domains, plan_tables
    from fusion.plan import plan as estimate
    from fusion.runtime.console import console, quiet, show
    from fusion.stages.context import RunContext
    from fusion.stages.data_sets import describe_data
    from fusion.stages.limits.notices import notices
    from fusion.stages.limits.refuse import refuse_plan
    from fusion.stages.lineage import same_models

    quiet()
    given = {"plan.gpus": gpus, "plan.gpu": gpu, "plan.mfu": mfu}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    context = RunContext(loading.load(config, [*override, *overrides])).planned
    notes = refuse_plan(context, read_data=count or context.config.plan.tokens is None)
    planned = estimate(context, count)
    console.print(*plan_tables(planned, context.config.plan), sep="\n")
    if not planned.from_settings:
        console.print(describe_domains(context))
        show([*describe_data(context), *same_models(context), *notices(context)])
    show(f"On this machine the run would stop: {note}" for note in notes)


@app.command()
def respond(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Let sources answer the training prompts, and choose which answers are learned from (data.responses)."""
    until(config, override, "respond")


@app.command()
def extract(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Let every model read the training examples, and cache its next-token log-probabilities."""
    until(config, override, "extract")


@app.command()
def train(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Train the pivot; extracts first what is missing."""
    until(config, override, "train")


@app.command()
def rounds(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Do the run up to its rounds and through them: the pivot writes, its sources read that, and it learns from it."""
    until(config, override, "rounds", needs="rounds")


@app.command()
def preferences(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Do the run up to its preferences and through them: right answers against wrong ones to the same prompts."""
    until(config, override, "preferences", needs="preferences")


@app.command()
def launch(
    config: ConfigFile,
    on: Annotated[str, typer.Option("--on", help="local, torchrun, deepspeed, slurm or kubernetes.")],
    override: Set = [],  # noqa: B006
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs of a node, one process each; 1 by default.")] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", help="Machines; those of the hostfile, or 1.")] = None,
    hostfile: Annotated[str | None, typer.Option("--hostfile", help="Lines such as `node1 slots=8`.")] = None,
    head: Annotated[
        str | None, typer.Option("--head", help="HOST[:PORT] where several nodes meet (torchrun, slurm).")
    ] = None,
    option: Annotated[
        list[str],
        typer.Option("--option", metavar="KEY[=VALUE]", help="For slurm (partition=gpu) and kubernetes (image=...)."),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and what it would read.")] = False,
) -> None:
    """Start `fusion run` on several GPUs or machines, here or through a queue."""
    from fusion.config import loading
    from fusion.core.secrets import refuse_secrets
    from fusion_launch import Program, Resources, execute, prepare

    refuse_secrets([word.partition("=")[2] for word in option], "--option")
    name = loading.load(config, override).name  # an error here, not after hours in a queue
    files = {config: loading.whole(config)} if Path(config).is_file() else {}
    program = Program("fusion", ("run", config, *(part for value in override for part in ("--set", value))), name)
    resources = Resources.from_options(gpus=gpus, nodes=nodes, hostfile=hostfile, head=head)
    prepared = prepare(on, program, resources, option, files=files)
    if not dry_run:
        raise typer.Exit(execute(prepared))
    typer.echo(prepared.stdin or prepared.command, nl=not prepared.stdin)
    if note := prepared.note or (f"{prepared.command} reads this." if prepared.stdin else ""):
        typer.echo(f"# {note}", err=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")],
) -> None:
    """Write report.html of a run again from what lies in its folder."""
    from fusion.core.system_errors import naming
    from fusion.report.html_page import write_report

    with naming(folder):
        typer.echo(write_report(folder))


@app.command()
def inspect(
    config: ConfigFile,
    override: Set = [],  # noqa: B006
    alignment: Annotated[
        bool, typer.Option("--alignment", help="Audit which positions of each source match the pivot's.")
    ] = False,
    rescaling: Annotated[
        float | None,
        typer.Option(
            "--rescaling",
            min=0,
            max=1,
            metavar="SHARE",
            help="How distillation at this share of the loss rescales examples.",
        ),
    ] = None,
    graph: Annotated[
        bool, typer.Option("--graph", help="How far graph terms lie from POT's Gromov-Wasserstein distance.")
    ] = False,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes",
            min=1,
            metavar="MIN_ROWS",
            help="Mean predictions where a token follows, for tokens with so many rows.",
        ),
    ] = None,
    concepts: Annotated[
        Literal["mlp", "residual"] | None,
        typer.Option("--concepts", help="Units that detect digits, keywords, ends of sentences ..."),
    ] = None,
) -> None:
    """Show the models, vocabularies and caches of a run; with --alignment match rates and tokens that never match.

    With --rescaling, of extracted sources, the factor on each true token's gradient by domain and certainty of the pivot.
    With --graph, of extracted sources, our bounds of the Gromov-Wasserstein distance beside POT's solvers on 32 examples.
    With --classes and --concepts the pivot, and the fused model if there is one, are run on the first 500 training examples.
    """
    from fusion.analysis import (
        audit_by_source,
        dissect_models,
        graph_distances_by_source,
        overview,
        rescaling_by_source,
        token_classes_by_source,
    )
    from fusion.config import loading
    from fusion.report.inspect_tables import (
        audit_tables,
        classes_table,
        concepts_table,
        graph_tables,
        overview_table,
        rescaling_table,
    )
    from fusion.runtime.console import console, quiet
    from fusion.stages.context import RunContext

    quiet()
    context = RunContext(loading.load(config, override))
    console.print(overview_table(overview(context)))
    if alignment:
        for name, audit in audit_by_source(context).items():
            console.print(*audit_tables(name, audit))
    if rescaling is not None:
        for name, entries in rescaling_by_source(context, rescaling).items():
            console.print(rescaling_table(name, entries))
    if graph:
        for name, distances in graph_distances_by_source(context).items():
            console.print(*graph_tables(name, distances))
    if classes is not None:
        for name, entries in token_classes_by_source(context, classes).items():
            console.print(classes_table(name, entries, context.tokenizers["pivot"]))
    if concepts is not None:
        console.print(concepts_table(dissect_models(context, concepts), concepts))


@app.command(context_settings={"ignore_unknown_options": True})  # which then are among `others`
def evaluate(
    config: ConfigFile,
    others: Annotated[list[str], typer.Argument(hidden=True)] = [],  # noqa: B006
    override: Set = [],  # noqa: B006
    originals: Annotated[
        bool,
        typer.Option("--originals", help="Pivot and sources alone, before the run: is there anything to learn?"),
    ] = False,
) -> None:
    """Measure the models of a run on its held-out examples; `fusion benchmark` measures any models on benchmarks."""
    if others:
        raise ValueError(
            f"fusion evaluate takes one CONFIG and --set, not {' '.join(others)}. Any models are measured on "
            "benchmarks by fusion benchmark MODELS... --suite NAME, such as --suite quick."
        )
    from fusion import pipeline
    from fusion.config import loading
    from fusion.runtime.console import quiet
    from fusion.stages.context import RunContext

    quiet()
    loaded = loading.load(config, override)
    if originals:
        pipeline.evaluate_originals(loaded)
    else:
        pipeline.run(loaded, "evaluate")
        pipeline.show_scores(RunContext(loaded))


def until(config: str, override: list[str], stage: str, needs: str | None = None) -> None:
    """Run the pipeline up to this stage, which the configuration must have where it is called `needs` there."""
    from fusion import pipeline
    from fusion.config import loading
    from fusion.runtime.console import quiet

    quiet()
    loaded = loading.load(config, override)
    if needs and getattr(loaded, needs) is None:
        raise loading.ConfigError(
            f"{config} has no {needs}, and `fusion {stage}` is for runs that do; use `fusion run`"
        )
    pipeline.run(loaded, stage)
