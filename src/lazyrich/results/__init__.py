"""What a measurement found: numbers, series, tables and figures."""
