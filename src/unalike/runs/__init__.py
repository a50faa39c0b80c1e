"""Whole jobs: prompts in, an output folder with images, scores and a report out."""
