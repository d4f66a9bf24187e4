"""Measurements over a training: while it runs, and from its checkpoints."""
