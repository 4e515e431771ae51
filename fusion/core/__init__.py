"""What everything else is made of: rows of logits, the mass outside their entries, and the base of all settings."""
