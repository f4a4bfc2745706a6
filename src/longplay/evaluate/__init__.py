"""Evaluation: features, distances, baselines and the report on a model.

The metric functions take arrays and know nothing of models; `model.py` brings the two together.
"""
