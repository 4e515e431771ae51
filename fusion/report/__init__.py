"""The evidence of a run: tables, figures, one HTML page, and the model card of the fused model."""
