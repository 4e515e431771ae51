"""Importer of DistillKit's captured logits: Parquet files, and their compression settings in `compression_config.yaml`.

A row of a file is one sequence: `input_ids`; `compressed_logprobs`, bytes for each position; `bytepacked_indices`, k ids for
each position, ceil(log2 d) bits each, highest bit first. Position p predicts token p + 1. The bytes of a position are

    exact_k values of exact_dtype     a coefficient of term_dtype for each of polynomial_terms
    for each of residual_bins: a scale of scale_dtype, then num_elements numbers of element_bits, highest bit first

The k - exact_k values after the exact ones are the polynomial at t = 0, 1, 2, ... (or evenly from 0 to 1 with normalize_t)
plus the residuals of the bins, a number q standing for (q - 2^(bits-1)) scale, or (2q - 1) scale where it is one bit. With
delta_encoding every value is the difference to the one before. Values are log-probabilities at temperature 1 over the whole
head, padded ids included; the fit is lossy, so they are put in order again.

These facts are DistillKit's own (its `compression` package, `sample_common.py` and `sample_logits_vllm.py`, as of 2026-03).
The older layout (`packed_indices`, `exact_values`, `coeffs`) is refused: its values may be log-probabilities or logits less
their mean, and the file does not say which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as parquet
import torch
from numpy.typing import NDArray
from pyarrow import ArrowException
from pydantic import Field, ValidationError
from torch import Tensor

from fusion.core.settings import Settings
from fusion.core.yaml_files import read_yaml
from fusion.sources.importers.sequence import ImportedSequence
from fusion.sources.listed import dtype_errors

SETTINGS_FILE = "compression_config.yaml"
COLUMNS = ["input_ids", "compressed_logprobs", "bytepacked_indices"]
FloatType = Literal["float16", "bfloat16", "float32", "float64"]


class ResidualBin(Settings):
    """Residuals that share a scale (an entry of `residual_bins`)."""

    scale_dtype: FloatType
    element_bits: int = Field(gt=0, le=32)
    num_elements: int = Field(gt=0)


class CompressionSettings(Settings):
    """DistillKit's compression settings, under its own names."""

    d: int = Field(gt=1)
    k: int = Field(gt=0)
    exact_k: int = Field(ge=0)
    exact_dtype: FloatType = "float32"
    polynomial_terms: list[int | Literal["sqrt", "exp"]] | None = None
    term_dtype: FloatType = "float32"
    residual_bins: list[ResidualBin] = Field(default=[])
    delta_encoding: bool = True
    error_diffusion: bool = False
    """How numbers were rounded; reading does not depend on it."""
    normalize_t: bool = False

    @property
    def id_bits(self) -> int:
        """Bits of a packed token id."""
        return math.ceil(math.log2(np.float32(self.d)))


def read_distillkit(files: Sequence[Path], codec: Path | None = None) -> Iterator[ImportedSequence]:
    """Yield sequences in the order of the files. `codec` is a YAML file with the settings, by default the one beside each file.

    Raises ValueError for a file without settings, of the older layout, or of another shape than the settings say.
    """
    for file in files:
        settings = load_compression(codec or file.with_name(SETTINGS_FILE))
        try:
            yield from _sequences(settings, file)
        except (ArrowException, AttributeError, TypeError) as error:
            raise ValueError(f"{file} is damaged, or no file of DistillKit ({error}); copy it again.") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise ValueError(f"{file} is cut or damaged ({error}); copy it again.") from error  # as pyarrow has it


def _sequences(settings: CompressionSettings, file: Path) -> Iterator[ImportedSequence]:
    table = parquet.ParquetFile(file)
    if missing := set(COLUMNS) - set(table.schema_arrow.names):
        raise ValueError(
            f"{file} has no columns {', '.join(sorted(missing))}; it has {', '.join(table.schema_arrow.names)}. Files of "
            "DistillKit's older layout cannot be read: they do not say what their values are."
        )
    number = 0
    for batch in table.iter_batches(batch_size=16, columns=COLUMNS):
        for row in range(len(batch)):
            columns = (batch.column(name)[row].values for name in COLUMNS)
            yield _sequence(settings, file, number, *columns)
            number += 1


def load_compression(file: Path) -> CompressionSettings:
    """Read the settings from DistillKit's YAML, or a training configuration (teacher.logprob_compressor)."""
    if not file.exists():
        raise ValueError(f"There is no {file} with the settings of the compression. Name the file with --codec.")
    raw = read_yaml(file)
    try:
        raw = raw.get("teacher", raw)
        return CompressionSettings.model_validate(raw.get("logprob_compressor", raw))
    except (ValidationError, AttributeError) as error:
        raise ValueError(f"{file} does not hold the settings of DistillKit's compression: {error}") from error


def _sequence(
    settings: CompressionSettings, file: Path, number: int, tokens: Any, values: Any, ids: Any
) -> ImportedSequence:
    sequence, parts = tokens.to_pylist(), []
    for column in (values, ids):
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.uint8, copy=False)
        parts.append(flat.reshape(len(column), -1))
    if len(parts[0]) not in (len(sequence) - 1, len(sequence)) or len(parts[0]) != len(parts[1]):
        raise ValueError(
            f"{file}, sequence {number}: {len(sequence)} tokens have {len(parts[0])} and {len(parts[1])} positions."
        )
    try:
        values, errors = decompress(parts[0], settings)
        ids = torch.from_numpy(unpack_bits(parts[1], settings.id_bits, settings.k))
        return ImportedSequence(
            sequence, values, ids, origin=f"{file}, sequence {number}", errors=errors, head_size=settings.d
        )
    except ValueError as error:
        raise ValueError(f"{file} was made with other settings than {settings}: {error}") from error


def decompress(packed: NDArray[np.uint8], settings: CompressionSettings) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities [N, k] in float32 from the bytes of N positions, and the largest error of each.

    Exact values are as good as their type. A number of a bin is within its scale, for it was rounded and cut off at its bits.
    How far a polynomial alone is off the file does not say: infinity.
    """
    exact, rest = _floats(packed, settings.exact_dtype, settings.exact_k)
    terms, rest = _floats(rest, settings.term_dtype, len(settings.polynomial_terms or []))
    residuals, fits = torch.zeros(2, len(packed), settings.k - settings.exact_k)
    done = 0
    for bin in settings.residual_bins:
        scale, rest = _floats(rest, bin.scale_dtype, 1)
        size = -(-bin.element_bits * bin.num_elements // 8)
        numbers = torch.from_numpy(unpack_bits(rest[:, :size], bin.element_bits, bin.num_elements)).float()
        steps = 2 * numbers - 1 if bin.element_bits == 1 else numbers - 2 ** (bin.element_bits - 1)
        residuals[:, done : done + bin.num_elements] = steps * scale.float()
        fits[:, done : done + bin.num_elements] = scale.float().abs()
        done, rest = done + bin.num_elements, rest[:, size:]
    if rest.shape[1]:
        raise ValueError(f"{rest.shape[1]} bytes of a position are left over")
    if settings.polynomial_terms:
        curve = (_polynomial_terms(settings, terms.dtype) * terms[:, None]).sum(-1).float()
        residuals = curve + residuals
    fits[:, done:] = torch.inf
    values = torch.cat([exact.float(), residuals], dim=-1)
    errors = torch.cat([dtype_errors(exact, exact.dtype), dtype_errors(residuals, terms.dtype) + fits], dim=-1)
    return (values.cumsum(-1), errors.cumsum(-1)) if settings.delta_encoding else (values, errors)


def _polynomial_terms(settings: CompressionSettings, dtype: torch.dtype) -> Tensor:
    """Return each polynomial term at each of the fitted ranks: [k - exact_k, terms]."""
    count = settings.k - settings.exact_k
    t = torch.linspace(0, 1, count, dtype=dtype) if settings.normalize_t else torch.arange(count, dtype=dtype)
    special = {"sqrt": torch.sqrt, "exp": torch.exp}
    return torch.stack(
        [t**term if isinstance(term, int) else special[term](t) for term in settings.polynomial_terms or []], -1
    )


def _floats(packed: NDArray[np.uint8], dtype: str, count: int) -> tuple[Tensor, NDArray[np.uint8]]:
    """Return the first `count` numbers of each row's bytes, and the bytes after them."""
    kind: torch.dtype = getattr(torch, dtype)
    size = kind.itemsize * count
    if packed.shape[1] < size:
        raise ValueError(f"a position has {packed.shape[1]} bytes where {size} should follow")
    taken = torch.from_numpy(np.array(packed[:, :size], order="C")).view(kind) if size else torch.zeros(len(packed), 0)
    return taken.reshape(len(packed), count), packed[:, size:]


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    """Return `count` numbers of `bits` bits from each row's bytes, highest bit first."""
    if packed.shape[1] != -(-bits * count // 8):
        raise ValueError(f"{count} numbers of {bits} bits do not take {packed.shape[1]} bytes")
    taken = np.unpackbits(packed, axis=1)[:, : bits * count].reshape(len(packed), count, bits)
    return taken @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
