"""The way of an image through an engine on a GPU, of which only the detections come back.

These modules import torch, so only the engines of a GPU import them. All of it runs on a CPU as
well, where the tests compare it with the NumPy path.
"""
