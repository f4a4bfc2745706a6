"""Inference: sampling, decoding, windows."""
