"""What the report shows of preferences: how many pairs there were, one of each domain, and how far they were learned."""

from fusion.report.preferences.section import LearnedTerm, SamplePair, learned_terms, sample_pairs

__all__ = ["LearnedTerm", "SamplePair", "learned_terms", "sample_pairs"]
