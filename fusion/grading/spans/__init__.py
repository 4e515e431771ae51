"""The words that DROP asks for: one or several spans of the passage, in either order, numbers and dates, in any usual form."""

from fusion.grading.spans.answer import extract_span, same_spans, same_words, split_spans

__all__ = ["extract_span", "same_spans", "same_words", "split_spans"]
