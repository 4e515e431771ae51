"""The folder of a run that has ended, with a tiny model and all that a run leaves beside it; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

from fusion.runtime.file_states import file_states
from tests.helpers import tiny

PUSHED = {
    "README.md", "config.json", "fusion.json", "generation_config.json", "model.safetensors", "report.html",
    "report/bars.png", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip
"""What of it goes to a hub."""
CARD = "---\nlibrary_name: transformers\n---\n\n# small\n\nA model.\n"


def finished_run(folder: Path) -> Path:
    fused = tiny.folder("llama", folder / "fused")
    mark_fused(fused)
    (fused / "README.md").write_text(CARD)
    (fused / "notes.txt").write_text("mine")
    (fused / "training_args.bin").write_bytes(b"\x80")
    (folder / "config.yaml").write_text("name: small\n")
    (folder / "run.json").write_text(json.dumps({"name": "small"}))
    (folder / "report.html").write_text("<html>a report</html>\n")
    for name in ("report/bars.png", "cache/a/shard-00001.safetensors", "train/unified/checkpoint-2/model.safetensors"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"\x89PNG" + name.encode())
    return folder


def mark_fused(fused: Path) -> None:
    """Write what the last stage writes when the weights are on the disk."""
    states = file_states(fused, fused.glob("*.safetensors"))
    (fused / "fusion.json").write_text(json.dumps({"from": "unified", "made": "1", "models": {}, "files": states}))
