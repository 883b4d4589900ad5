"""Networks written by hand, each with the groups that must be found in it, worked out on paper."""

from . import attention, blocks, classic, codec, dense, joining, odd, shuffles
from ._case import ZOO, Case

__all__ = ["ZOO", "Case", "attention", "blocks", "classic", "codec", "dense", "joining", "odd", "shuffles"]
