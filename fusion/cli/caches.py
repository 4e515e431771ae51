"""Commands on caches: import, show, verify, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusion.cli.app import CacheFolder, Set, caches


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
    from fusion.analysis.cache_contents import describe_cache
    from fusion.config import loading
    from fusion.core.system_errors import naming
    from fusion.report.console_tables import key_value_table
    from fusion.runtime.console import console, quiet
    from fusion.sources.importers import FILE_SUFFIXES
    from fusion.stages.context import RunContext
    from fusion.stages.import_cache import import_cache

    if form not in FILE_SUFFIXES:
        raise ValueError(f"--format {form}: there are {', '.join(FILE_SUFFIXES)}.")
    quiet()
    context = RunContext(loading.load(config, override))
    with naming(out or context.config.folder):
        cache = import_cache(context, source, form, files, codec, tokens, out)
    console.print(key_value_table(str(cache.folder), describe_cache(cache.folder)))


@caches.command()
def show(folder: CacheFolder) -> None:
    """Show what a cache holds, which fields its rows lack, and what it was made of."""
    from fusion.analysis.cache_contents import describe_cache
    from fusion.report.console_tables import key_value_table
    from fusion.runtime.console import console

    console.print(key_value_table(str(folder), describe_cache(folder)))


@caches.command()
def verify(folder: CacheFolder) -> None:
    """Compare every shard of a cache with its checksum."""
    from fusion.cache import Cache

    cache = Cache(folder)
    cache.verify()
    typer.echo(f"{folder}: {len(cache):,} rows of {cache.num_examples:,} examples, all as they were written.")


@caches.command("audit")
def audit_(
    folder: CacheFolder,
    rows: Annotated[int, typer.Option(min=2, help="Rows to look at; two for each dimension are needed.")] = 2048,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Folder or hub id of the model it should come from, to compare with."),
    ] = None,
    softcap: Annotated[float | None, typer.Option(min=0, help="The model's final_logit_softcapping.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="With --softcap: the model's hidden_size.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the span as `basis` [V, d] to this safetensors file.")] = None,
) -> None:
    """Show what whole rows (top_k: all) of a model of yours give away: its width and the span of its output layer."""
    from fusion.analysis.cache_contents import recover_head
    from fusion.report.console_tables import key_value_table
    from fusion.runtime.console import console, quiet

    quiet()
    values = recover_head(folder, rows=rows, model=model, softcap=softcap, width=width, out=out)
    console.print(key_value_table(str(folder), values))
