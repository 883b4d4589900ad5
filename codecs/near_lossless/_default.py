"""What commands take where nothing is named; here, for command lines must not import torch to show their help."""

DEFAULT_MODEL = "causal"
"""The bundled network that codes images."""
