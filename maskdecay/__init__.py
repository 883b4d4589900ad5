"""Structured model compression by mask decay for PyTorch."""
