"""Check fusion on this machine's GPU, without a network: `python launch/gpu_check.py --out FILE.json`.

What it does is in `gpu_checks`, beside this file. fusion need not be installed: the checkout that this file lies in is used.
"""

import os
import sys
from pathlib import Path

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "0",  # Trainer would spread over all GPUs that it sees
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> int:
    """Make the checkout importable, then run the checks; the exit code."""
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root / part) for part in ("", "eval", "launch")]
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)  # before the libraries are imported, which read them then

    from gpu_checks.runner import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
