"""What is built on a fused model and is no part of fusion."""
