"""Several fine-tuned children of one base model into one model: `methods` on tensors, `stream` on folders."""
