"""The terms of fusion inside TRL's SFTTrainer (`pip install trl`).

python examples/sft_trainer.py [FOLDER]
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import fusion
from fusion.objectives import ForwardKL
from fusion.quickstart import MODELS


class MyTrainer(fusion.FusionMixin, SFTTrainer):
    """SFTTrainer's loss and its metrics, with the terms added."""


tokenizer = AutoTokenizer.from_pretrained(MODELS["pivot"])
examples = fusion.read_examples("builtin:sums", split="fusion", limit=64)
cache = fusion.extract("quickstart:sums", examples, top_k=10)
collator = fusion.FusionCollator(tokenizer, examples, {"sums": cache}, {"sums": "quickstart:sums"})

trainer = MyTrainer(
    model=AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32),
    args=SFTConfig(
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs/sft_trainer",
        max_steps=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        remove_unused_columns=False,  # the collator reads the number of each example
        dataset_kwargs={"skip_prepare_dataset": True},  # the texts are encoded already, as the rows were made
    ),
    train_dataset=collator.dataset(),
    data_collator=collator,
    processing_class=tokenizer,
    objectives=[ForwardKL(weight=0.5)],
)
trainer.train()
print([entry["fusion/forward_kl/sums"] for entry in trainer.state.log_history if "loss" in entry])
