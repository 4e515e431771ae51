"""Is this answer right? What is read out of an answer, and a sandbox for programs."""
