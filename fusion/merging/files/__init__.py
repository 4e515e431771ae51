"""Model folders: checkpoints read tensor by tensor, merged as a stream, written, and described."""
