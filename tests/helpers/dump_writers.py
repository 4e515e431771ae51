"""Small writers of other programs' files, made from the descriptions of the formats and from none of the readers' code."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from itertools import pairwise

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
import yaml
import zstandard

CODES = {"float16": "<e", "float32": "<f", "float64": "<d"}


def number(value, dtype):
    if dtype == "bfloat16":
        return struct.pack("<f", torch.tensor(value).bfloat16().float().item())[2:]
    return struct.pack(CODES[dtype], value)


def bits(values, width):
    """Numbers one behind the other, highest bit first, filled up to whole bytes."""
    text = "".join(f"{value:0{width}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def distillkit_position(values, how):
    """The bytes of one position, from its k log-probabilities in descending order."""
    values = [float(v) for v in values]
    if how.get("delta_encoding", True):
        values = [values[0], *(b - a for a, b in pairwise(values))]
    exact, left = values[: how["exact_k"]], np.array(values[how["exact_k"] :])
    out = b"".join(number(value, how.get("exact_dtype", "float32")) for value in exact)
    if terms := how.get("polynomial_terms"):
        t = np.linspace(0, 1, len(left)) if how.get("normalize_t") else np.arange(len(left), dtype=float)
        table = np.stack([getattr(np, term)(t) if isinstance(term, str) else t**term for term in terms], -1)
        fit = np.linalg.lstsq(table, left, rcond=None)[0]
        out += b"".join(number(c, how.get("term_dtype", "float32")) for c in fit)
        left = left - table @ fit
    for bin in how.get("residual_bins", []):
        part, left = left[: bin["num_elements"]], left[bin["num_elements"] :]
        half = 1 if bin["element_bits"] == 1 else 2 ** (bin["element_bits"] - 1)
        scale = max(abs(part).max() / half, 1e-12)
        out += number(scale, bin["scale_dtype"])
        if bin["element_bits"] == 1:
            codes = [int(v > 0) for v in part]
        else:
            codes = [int(np.clip(round(v / scale), -half, half - 1)) + half for v in part]
        out += bits(codes, bin["element_bits"])
    return out


def distillkit(folder, truth, how, extra=(), name="data_0.parquet"):
    """A capture of all texts, each with a token more at the end, as DistillKit adds it."""
    folder.mkdir(exist_ok=True)
    (folder / "compression_config.yaml").write_text(yaml.safe_dump(how))
    width = (how["d"] - 1).bit_length()
    rows = []
    for id, text in truth.texts.items():
        values, ids = truth.top(id, how["k"])
        positions = [distillkit_position(row, how) for row in values]
        packed = [bits(row, width) for row in ids.tolist()]
        rows.append((
            [*text.input_ids, 0],
            [list(b) for b in [*positions, positions[-1]]],
            [list(b) for b in [*packed, packed[-1]]],
        ))  # fmt: skip
    byte_lists = pyarrow.list_(pyarrow.list_(pyarrow.uint8()))
    types = {
        "input_ids": pyarrow.list_(pyarrow.uint64()),
        "compressed_logprobs": byte_lists,
        "bytepacked_indices": byte_lists,
    }
    columns = [pyarrow.array(c, t) for c, t in zip(zip(*[*rows, *extra], strict=True), types.values(), strict=True)]
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(types, columns, strict=True))), folder / name)
    return folder


def megatron(folder, sequences, *, version, dp, mbs, micro, per_tar=1, first=0, dtype=torch.float16, named="iteration"):
    """Archives of a run over `sequences`, each (values, ids) of [S, K], in order: iterations of dp * micro * mbs of them."""
    folder.mkdir(exist_ok=True)
    size = dp * micro * mbs
    iterations = [sequences[i : i + size] for i in range(0, len(sequences), size)]
    assert all(len(iteration) == size for iteration in iterations)
    saver = {"k": sequences[0][0].shape[1], "save_dtype": "fp16"}
    if version == 2:
        saver |= {"format_version": 2, "mbs_save": mbs, "dp_size_save": dp, "gbs_save": size}
    for rank in range(dp):
        members = {}
        for number_, iteration in enumerate(iterations):
            batches = []
            for m in range(micro):
                mine = iteration[(m * dp + rank) * mbs :][:mbs]
                values, ids = (torch.stack(part, 1) for part in zip(*mine, strict=True))
                batches.append((values.to(dtype), (ids & 0xFFFF).to(torch.uint16), (ids >> 16).bool()))
            parts = dict(zip(("values", "indices_low", "bit_17"), map(list, zip(*batches, strict=True)), strict=True))
            if version == 2:
                parts = {name: torch.cat(part, 1) for name, part in parts.items()} | {"format_version": 2}
            buffer = io.BytesIO()
            torch.save(parts, buffer)
            at = first + number_
            name = f"{at}.pt.zst" if named == "iteration" else f"{at * size}-{(at + 1) * size}.pt.zst"
            members[name] = zstandard.ZstdCompressor(level=3).compress(buffer.getvalue())
        names = list(members)
        for group in (names[i : i + per_tar] for i in range(0, len(names), per_tar)):
            begin, end = group[0].split(".")[0], group[-1].split(".")[0]
            covers = end if named == "iteration" else f"{begin.split('-')[0]}-{end.split('-')[1]}"
            meta = json.dumps({"hash": "x", "saver": saver}).encode()
            with tarfile.open(folder / f"{'' if version == 2 else 'cp0_'}dp{rank}__{covers}.tar", "w") as tar:
                for name, data in [("_meta.json", meta), *((name, members[name]) for name in group)]:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
