"""Model folders: read, merged as a stream, written, described."""
