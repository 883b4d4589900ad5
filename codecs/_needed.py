"""Packages that only an evaluation needs."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def needed(name: str) -> ModuleType:
    """Import a package of the extra `evaluate`.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise ImportError(f"evaluating needs {package}: pip install 'maskdecay[evaluate]'", name=name) from error
