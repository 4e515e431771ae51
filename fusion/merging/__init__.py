"""Merge models fine-tuned from one base into one model, tensor by tensor.

How a merge flows through the folders: `recipes/` reads a YAML file, ours or mergekit's, into a `MergeRecipe`; where that asks
for it, `search` merges candidates and scores them on validation examples to choose the weights. `files/merge_job` opens the
folders (`checkpoint`, `adapters/`) and checks that they fit together. `files/stream` then goes over the base's tensors: each
becomes a `TensorStack` of readers, the method in `methods/` gives a rule, the rule makes each tile, and `checkpoint_writer`
puts it where it belongs in the new weight files. At the end `auxiliary_files` copies the tokenizer and writes the card, the
recipe and `merge.json`, and the folder appears under its name by rename.
"""
