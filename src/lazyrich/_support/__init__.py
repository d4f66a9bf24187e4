"""What every room uses and what knows no model: files, stored values, text, extras, progress, processes."""
