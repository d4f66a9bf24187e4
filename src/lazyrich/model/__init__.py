"""Runs a user's network on batches and leaves no trace: batches, head, layers, checkpoints, determinism, redraw."""
