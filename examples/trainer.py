"""The terms of fusion inside transformers' Trainer: its own loss stays, and the terms are added to it.

python examples/trainer.py [FOLDER]
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import fusion
from fusion.objectives import ForwardKL
from fusion.quickstart import MODELS


class MyTrainer(fusion.FusionMixin, Trainer):
    """Any trainer that derives from Trainer will do."""


tokenizer = AutoTokenizer.from_pretrained(MODELS["pivot"])
examples = fusion.read_examples("builtin:sums", split="fusion", limit=64)
cache = fusion.extract("quickstart:sums", examples, top_k=10)
collator = fusion.FusionCollator(tokenizer, examples, {"sums": cache}, {"sums": "quickstart:sums"})

trainer = MyTrainer(
    model=AutoModelForCausalLM.from_pretrained(MODELS["pivot"], dtype=torch.float32),
    args=TrainingArguments(
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs/trainer",
        max_steps=4,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        remove_unused_columns=False,  # the collator reads the number of each example
    ),
    train_dataset=collator.dataset(),
    data_collator=collator,
    processing_class=tokenizer,
    objectives=[ForwardKL(weight=0.5)],
)
trainer.train()
print([entry["fusion/forward_kl/sums"] for entry in trainer.state.log_history if "loss" in entry])
