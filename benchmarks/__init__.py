"""Measured side by side, on one machine, in one run; results are JSON, tables are generated."""
