"""The command `fusion`. Torch and its friends are imported by the command that needs them, so that help is quick."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fusion import ranks

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fuse several language models, each with its own tokenizer, into one better model.",
)

caches = typer.Typer(no_args_is_help=True, help="Look at caches, check them, and bring in those of other programs.")
app.add_typer(caches, name="cache")

CacheFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Such as runs/<name>/cache/<model>.")]
ConfigFile = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a recipe (fusion recipes).")
]
Set = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a value; may be given again.")]


@app.command()
def run(config: ConfigFile, override: Set = []) -> None:  # noqa: B006  (typer reads the default, nothing writes to it)
    """Do everything: extract, train, merge, evaluate, report. What is done is not done again."""
    _run(config, override, "report")


@app.command()
def plan(
    config: ConfigFile,
    override: Set = [],  # noqa: B006
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs of all machines together; sets plan.gpus.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Kind of GPU, such as h800; sets plan.gpu.")] = None,
    mfu: Annotated[
        float | None, typer.Option("--mfu", help="Share of its peak; sets plan.mfu, 0.4 if not said.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Read the data even where plan.tokens is given.")] = False,
) -> None:
    """Say what a run will take, and what would not fit, before anything runs; no weights are read."""
    from fusion import configfile
    from fusion.job import Job
    from fusion.plan import domains, tables_of_plan
    from fusion.plan import plan as estimate
    from fusion.progress import console, quiet

    quiet()
    given = {"plan.gpus": gpus, "plan.gpu": gpu, "plan.mfu": mfu}
    said = [f"{key}={value}" for key, value in given.items() if value is not None]
    job = Job(configfile.load(config, [*override, *said]))
    found = estimate(job, count)
    console.print(*tables_of_plan(found, job.config.plan), sep="\n")
    if not found.by_hand:
        console.print(domains(job))


@app.command()
def extract(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Let every model read the training examples, and keep what it would have said in the cache."""
    _run(config, override, "extract")


@app.command()
def train(config: ConfigFile, override: Set = []) -> None:  # noqa: B006
    """Train the pivot; extracts first what is missing."""
    _run(config, override, "train")


@app.command()
def merge(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG | RECIPE | MODEL[:WEIGHT]...", help="What to merge; see above.", show_default=False
        ),
    ],
    override: Annotated[
        list[str],
        typer.Option("--set", metavar="A.B=C", help="Override a value of CONFIG, or set one of --method: density=0.5."),
    ] = [],  # noqa: B006
    method: Annotated[
        str | None, typer.Option(help="Merge the models that follow: linear, ties, sce, slerp, ...")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="The model they grew from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the merged model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the base's if not said.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="refuse or pad models with more or fewer tokens.")] = None,
    search: Annotated[
        str | None, typer.Option(metavar="DATA", help="Choose the weights on this validation file, such as dev.jsonl.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="As many as cores if not said.")] = None,
) -> None:
    """Merge models: those of a run, of a recipe, or of the command line.

    fusion merge CONFIG: everything of a run up to the merge of its pairwise models.

    fusion merge RECIPE.yaml --out DIR: a merge as a file, ours or mergekit's. A run has a pivot, a recipe has models.

    fusion merge --method ties --base DIR A:0.3 B:0.3 --out DIR: the same without a file.
    """
    from fusion.merge import recipe as recipes

    file = Path(inputs[0])
    raw = recipes.read(file) if method is None and len(inputs) == 1 and file.is_file() else None
    if method is None and (raw is None or not recipes.is_recipe(raw)):
        if len(inputs) > 1 or any(option is not None for option in (base, out, dtype, vocabulary, search, threads)):
            raise ValueError(
                f"{inputs[0]} is no recipe of a merge; give a recipe, or --method and the models to merge."
            )
        _run(inputs[0], override, "merge")
        return
    _merge(raw, inputs, override, method, base, out, threads, dtype=dtype, vocabulary=vocabulary, search=search)


@app.command()
def evaluate(
    targets: Annotated[
        list[str], typer.Argument(metavar="CONFIG | MODELS...", help="A run's CONFIG; with --suite, [NAME=]MODEL each.")
    ],
    override: Set = [],  # noqa: B006
    suite: Annotated[
        str | None, typer.Option(help="infi11, infi11-stock, quick, math, code, reasoning, or a YAML file.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmarks' files; else the hub.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for results and answers.")] = Path("evaluations"),
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    template: Annotated[
        Literal["auto", "chat", "plain"] | None, typer.Option(help="How prompts are written; else as the suite says.")
    ] = None,
    backend: Annotated[Literal["transformers", "vllm"], typer.Option(help="What runs the models.")] = "transformers",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Type of weights.")] = "float32",
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Run the programs models write, in a sandbox.")
    ] = False,
    guard: Annotated[str, typer.Option(metavar="NAMES", help="Fail where the last model is worse than these.")] = "",
    baseline: Annotated[str | None, typer.Option(metavar="NAME", help="The fine-tuned model, for the gap.")] = None,
    fusion_data: Annotated[list[Path], typer.Option(help="JSON lines to search for test questions.")] = [],  # noqa: B006
    ngram: Annotated[int, typer.Option(help="Words in a row that count as found.")] = 13,
    subsets: Annotated[bool, typer.Option("--subsets", help="Print a table of each task's subsets.")] = False,
) -> None:
    """Measure the models of a run on held-out examples (CONFIG), or any models on benchmarks (MODELS --suite NAME)."""
    if suite is None:
        _only_with_suite(
            targets, data=data, limit=limit, max_new_tokens=max_new_tokens, template=template, guard=guard,
            allow_code_execution=allow_code_execution, baseline=baseline, fusion_data=fusion_data, subsets=subsets,
            out=out != Path("evaluations"), backend=backend != "transformers", dtype=dtype != "float32", ngram=ngram != 13,
        )  # fmt: skip
        _run(targets[0], override, "evaluate")
        return
    if override:
        raise ValueError("--set changes a CONFIG; with --suite there is none.")
    if find_spec("lm_eval") is None:
        raise ValueError("Benchmarks need lm-eval: pip install 'logit-fusion[eval]'.")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when lm-eval is imported; the bars are ours
    from fusion.benchmark import Wanted, benchmark
    from fusion.progress import quiet
    from fusion.steps import device
    from fusion_eval.evaluate import Settings

    quiet()
    how = Settings(data, limit, max_new_tokens, template, allow_code_execution, backend, dtype, device())
    names = [name.strip() for name in guard.split(",") if name.strip()]
    worse = benchmark(targets, suite, how, Wanted(names, baseline, fusion_data, ngram, subsets), out)
    for regression in worse:
        typer.secho(f"Worse: {regression}", fg="red", err=True)
    if worse:
        raise typer.Exit(3)


@app.command()
def launch(
    config: ConfigFile,
    on: Annotated[str, typer.Option("--on", help="local, torchrun, deepspeed, slurm or kubernetes.")],
    override: Set = [],  # noqa: B006
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs of a node, one process each; 1 if not said.")] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", help="Machines; those of the hostfile, or 1.")] = None,
    hostfile: Annotated[str | None, typer.Option("--hostfile", help="Lines such as `node1 slots=8`.")] = None,
    head: Annotated[str | None, typer.Option("--head", help="HOST[:PORT] where several nodes meet (torchrun).")] = None,
    option: Annotated[
        list[str],
        typer.Option("--option", metavar="KEY[=VALUE]", help="For slurm (partition=gpu) and kubernetes (image=...)."),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and what it would read.")] = False,
) -> None:
    """Start `fusion run` on several GPUs or machines, here or through a queue."""
    from fusion import configfile
    from fusion_launch import Program, Resources, execute, prepare

    name = configfile.load(config, override).name  # a mistake is said here, not after hours in a queue
    files = {config: configfile.whole(config)} if Path(config).is_file() else {}
    program = Program("fusion", ("run", config, *(part for value in override for part in ("--set", value))), name)
    prepared = prepare(on, program, Resources.of(gpus, nodes, hostfile, head), option, files)
    if not dry_run:
        raise typer.Exit(execute(prepared))
    typer.echo(prepared.text or prepared.command, nl=not prepared.text)
    if about := prepared.note or (f"{prepared.command} reads this." if prepared.text else ""):
        typer.echo(f"# {about}", err=True)


@app.command()
def draft(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id, such as runs/<name>/fused.")],
    data: Annotated[str, typer.Option(help="Texts: builtin:SKILL, a file of rows, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder of the draft.")],
    prompt: Annotated[str, typer.Option(help="Prompt with columns in braces.")] = "{prompt}",
    response: Annotated[str, typer.Option(help="Response with columns in braces.")] = "{response}",
    limit: Annotated[int | None, typer.Option(min=2, help="At most so many examples.")] = None,
    heldout: Annotated[int, typer.Option(min=1, help="The last so many are measured on instead.")] = 16,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of prompt and response.")] = 1024,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the model's weights.")] = "float32",
    override: Annotated[list[str], typer.Option("--set", metavar="A=B", help="Such as epochs=5 or depth=3.")] = [],  # noqa: B006
    only_measure: Annotated[
        bool, typer.Option("--only-measure", help="Measure the draft in --out as it is, on MODEL; train nothing.")
    ] = False,
) -> None:
    """Train a small draft model that guesses a (fused) model's next tokens, and measure how many of them stand.

    What guess and check writes is what the model alone would have written.
    """
    from fusion import drafting
    from fusion.corpus import load
    from fusion.models import ModelRef
    from fusion.progress import console, quiet
    from fusion.tables import acceptance_table

    quiet()
    settings = drafting.parse(override)
    examples = load(data, domain="draft", prompt=prompt, response=response, limit=limit)
    if only_measure:
        found = drafting.measure_again(ModelRef(model), out, examples[-heldout:], settings)
    else:
        found = drafting.run(ModelRef(model), examples, heldout, settings, max_length, out, dtype)
    console.print(acceptance_table(str(out), found))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")],
) -> None:
    """Write report.html of a run again from what lies in its folder."""
    from fusion.report.page import write_report

    typer.echo(write_report(folder))


@app.command()
def inspect(
    config: ConfigFile,
    override: Set = [],  # noqa: B006
    alignment: Annotated[
        bool, typer.Option("--alignment", help="Audit how tokens of each source meet the pivot's.")
    ] = False,
    rescaling: Annotated[
        float | None,
        typer.Option(
            "--rescaling", min=0, max=1, metavar="SHARE", help="How distillation with this share rescales examples."
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes", min=1, metavar="LEAST", help="What models say where a token follows, at least so often."
        ),
    ] = None,
    concepts: Annotated[
        Literal["mlp", "residual"] | None,
        typer.Option("--concepts", help="Units that stand for digits, keywords, ends of sentences ..."),
    ] = None,
) -> None:
    """Show the models, vocabularies and caches of a run; with --alignment what matches and what never does.

    With --rescaling, of extracted sources, the factor on each true token's gradient by domain and certainty of the pivot.
    With --classes and --concepts the pivot, and the fused model if there is one, are run on the first 500 training examples.
    """
    from fusion import configfile
    from fusion.inspect import audit_all, classes_all, concepts_all, overview, rescaling_all
    from fusion.job import Job
    from fusion.progress import console, quiet
    from fusion.tables import audit_tables, classes_table, concepts_table, overview_table, rescaling_table

    quiet()
    job = Job(configfile.load(config, override))
    console.print(overview_table(overview(job)))
    if alignment:
        for name, audit in audit_all(job).items():
            console.print(*audit_tables(name, audit))
    if rescaling is not None:
        for name, entries in rescaling_all(job, rescaling).items():
            console.print(rescaling_table(name, entries))
    if classes is not None:
        for name, entries in classes_all(job, classes).items():
            console.print(classes_table(name, entries, job.tokenizers["pivot"]))
    if concepts is not None:
        console.print(concepts_table(concepts_all(job, concepts), concepts))


@caches.command("import")
def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of the other program, or folders of them.")
    ],
    form: Annotated[
        str, typer.Option("--format", help="distillkit, megatron, vllm or jsonl; docs/sources.md describes them.")
    ],
    config: Annotated[str, typer.Option("--config", help="The run whose examples they are.")],
    source: Annotated[str, typer.Option("--source", help="The source whose rows they are; its backend is imported.")],
    override: Set = [],  # noqa: B006
    codec: Annotated[
        Path | None, typer.Option(help="distillkit: YAML with the compression, if not beside the files.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="megatron: JSON lines with input_ids, in the order of its run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Another folder than the run's own.")] = None,
) -> None:
    """Make a source's cache from logits that DistillKit, Megatron-LM, vLLM or a program of yours wrote."""
    from fusion import configfile
    from fusion.cachefiles import facts, import_cache
    from fusion.dumps import ENDINGS
    from fusion.job import Job
    from fusion.progress import console, quiet
    from fusion.tables import facts_table

    if form not in ENDINGS:
        raise ValueError(f"--format {form}: there are {', '.join(ENDINGS)}.")
    quiet()
    made = import_cache(Job(configfile.load(config, override)), source, form, files, codec, tokens, out)
    console.print(facts_table(made.folder, facts(made.folder)))


@caches.command()
def show(folder: CacheFolder) -> None:
    """Say what a cache holds, what its rows do not know, and what it was made of."""
    from fusion.cachefiles import facts
    from fusion.progress import console
    from fusion.tables import facts_table

    console.print(facts_table(folder, facts(folder)))


@caches.command()
def verify(folder: CacheFolder) -> None:
    """Compare every shard of a cache with its checksum."""
    from fusion.cache import Cache

    cache = Cache(folder)
    cache.verify()
    typer.echo(f"{folder}: {len(cache):,} rows of {cache.examples:,} examples, all as they were written.")


@caches.command("audit")
def audit_(
    folder: CacheFolder,
    rows: Annotated[int, typer.Option(min=2, help="Rows to look at; two for each dimension are needed.")] = 2048,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Folder or hub id it is said to come from, to compare with.")
    ] = None,
    softcap: Annotated[float | None, typer.Option(min=0, help="The model's final_logit_softcapping.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="With --softcap: the model's hidden_size.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the span as `basis` [V, d] to this safetensors file.")] = None,
) -> None:
    """Show what whole rows (top_k: all) of a model of yours give away: its width and the span of its output layer."""
    from fusion.cachefiles import leak
    from fusion.progress import console, quiet
    from fusion.tables import facts_table

    quiet()
    console.print(facts_table(folder, leak(folder, rows, model, softcap, width, out)))


@app.command()
def recipes() -> None:
    """List the configurations that come with the package."""
    from fusion.recipes import recipes as known

    for name, file in known().items():
        typer.echo(f"{name:<24} {file.read_text().splitlines()[0].removeprefix('# ')}")


@app.command()
def study(
    file: Annotated[str, typer.Argument(metavar="STUDY", help="A YAML file, or the name of one that comes along.")],
    override: Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a value of every run.")] = [],  # noqa: B006
    page: Annotated[
        Path | None, typer.Option("--write", metavar="PAGE", help="A Markdown page to put the tables into.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs made at once, each in a process.")] = 1,
) -> None:
    """Train one pivot in several ways, each tuned alike and from several seeds, and compare them with intervals."""
    from fusion.progress import quiet
    from fusion.study import Grid, load, run
    from fusion.study.page import place, put, summary

    quiet()
    found = load(file)
    if page is not None:
        place(page, found.name)  # said now, not after hours
    outcome = run(Grid(found, override), jobs)
    if page is not None:
        put(page, found.name, summary(outcome))


@app.command()
def schema() -> None:
    """Print the JSON schema of a configuration, for editors."""
    from fusion.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


def _run(config: str, override: list[str], until: str) -> None:
    from fusion import configfile, pipeline
    from fusion.progress import quiet

    quiet()
    pipeline.run(configfile.load(config, override), until)


def _only_with_suite(targets: list[str], **given: object) -> None:
    """Raise ValueError where something was asked that only `--suite` can do."""
    if options := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise ValueError(f"{', '.join(options)} needs --suite, such as --suite quick; without it a CONFIG says all.")
    if len(targets) > 1:
        raise ValueError("Several models need --suite, such as --suite quick; without it, name one CONFIG.")


def _merge(
    raw: dict[str, Any] | None,
    inputs: list[str],
    settings: list[str],
    method: str | None,
    base: Path | None,
    out: Path | None,
    threads: int | None,
    search: str | None,
    **options: str | None,
) -> None:
    from fusion import merging
    from fusion.merge.recipe import parse

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if search is not None:
        given["search"] = {"validation": {"path": search}}
    if method is not None:
        raw, origin = merging.from_arguments(method, base, inputs, settings, **given), "fusion merge"
    else:
        assert raw is not None
        origin = inputs[0]
        if settings or base:
            raise ValueError(
                f"{origin} is a recipe: write its base and settings there; --base and --set go with --method."
            )
    if out is None:
        raise ValueError("Name the folder of the merged model with --out.")
    recipe = parse(raw, origin)
    recipe = recipe if method else parse(recipe.model_dump(exclude_unset=True) | given, origin)
    merged = merging.run(recipe, out, threads)
    typer.echo(f"{out}: merged." if merged.made else f"{out}: there already, from exactly these inputs.")


def main() -> None:
    """Run the command; what a user can mend is said in one message. FUSION_TRACEBACK=1 shows where it arose."""
    try:
        app()
    except (ValueError, FileNotFoundError, FileExistsError, KeyError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        place = "" if ranks.is_main() else f" in process {ranks.rank()}"
        typer.secho(f"Error{place}: {message}", fg="red", err=True)
        if os.environ.get("FUSION_TRACEBACK"):
            raise
        sys.exit(1)
