"""Layers that know only torch."""
