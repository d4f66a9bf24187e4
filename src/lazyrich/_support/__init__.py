"""What every room uses and what knows no model: nested values, files, stored values, text, extras, progress, processes."""
