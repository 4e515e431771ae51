"""What several stages of one run need, each computed once: models, examples, token ids, weights of sources.

models       which models there are, and what each is when it teaches
step         what trainings in rounds and on preferences know besides
run_context  both, and the examples: what stages get
"""

from fusion.stages.context.run_context import BATCH, CHOSEN, RunContext

__all__ = ["BATCH", "CHOSEN", "RunContext"]
