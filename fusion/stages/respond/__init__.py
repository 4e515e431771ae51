"""The stage in which sources answer the prompts of the training data, and what is learned from is chosen.

`sequence` tells it in order.

responses/<source>             its answers, in shards (`answers`)
responses/<source>-reads       how likely it finds the others' answers, or the references, where a check asks for that (`reads`)
responses/pivot-reads          how well all answers fit the pivot, where the choice asks for that
responses/best_sources         of each domain who answers its prompts without a reference, where one source does (`unlabelled`)
responses/<source>-unlabelled  its answers to them
responses/chosen               the examples that are learned from (`choose`)
"""
