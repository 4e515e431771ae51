"""One file a stage of the pipeline, and the context that the stages share."""
