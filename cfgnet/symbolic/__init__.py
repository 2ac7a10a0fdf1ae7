"""Formulas as graphs of operations: parsed, given shapes, made simpler, derived, written, and turned into kernels."""
