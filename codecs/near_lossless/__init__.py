"""A codec with a hard bound on the error of every sub-pixel, lossless at 0."""
