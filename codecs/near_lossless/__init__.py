"""A codec with a hard bound on the error of every sub-pixel, lossless at 0: a lossy picture and its quantised residual."""
