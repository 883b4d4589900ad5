"""Learned image codecs built on maskdecay, and what they share."""
