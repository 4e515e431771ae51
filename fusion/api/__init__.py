"""The engine from Python: what notebooks, scripts and training loops of one's own call. `fusion` itself offers all names.

runs        run, load_config, Run                  a whole run, and what it made
examples    read_examples                          a data file, or rows in memory, to examples
reading     extract                                a model reads examples; its rows become a Cache
rows        align, vocabulary_map, logit_rows      rows of two models, compared in a loop of one's own
encoding                                           examples in a model's tokens, and whether it can read them
collator    FusionCollator                         texts and cached rows of sources to batches; collator_checks: what it refuses
loss        FusionLoss                             logits and a batch's targets to the terms of the loss
mixin       FusionMixin                            the same inside transformers' Trainer and what derives from it
merging     merge                                  models that grew from one base become one
evaluation  evaluate                               a model on held-out examples
publishing  push                                   a finished model on a hub
pages                                              docs/api.md, made from the docstrings of all these names
"""
