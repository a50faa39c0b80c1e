"""Guidance for diffusers pipelines: hooks on scheduler and denoiser, prompts, autoencoders,
regions.
"""
