"""Guide a denoiser D(x, sigma) in a sampler of your own, with a memory from batch to batch."""

from itertools import pairwise

import torch

import unalike
from unalike.attach import guide_denoiser, karras_sigmas

# only its network is used; any function from noisy samples to clean ones will do
pipe = unalike.load("digits")
network, alphas = pipe.transformer, pipe.scheduler.alphas_cumprod
# the noise levels that the network knows, for x = x0 + sigma · noise
trained = ((1 - alphas) / alphas).sqrt()


@torch.no_grad()
def denoise(x, sigma, labels):
    """The clean samples that the network predicts from x (B, …) at this noise level."""
    time = (trained.log() - sigma.log()).abs().argmin().expand(len(x))
    output = network(x / (1 + sigma**2) ** 0.5, timestep=time, class_labels=labels).sample
    return x - sigma * output[:, :4]  # the other channels predict a variance


def heun(denoiser, noise, sigmas, labels):
    """The deterministic sampler of Karras et al. 2022, of second order."""
    x = noise * sigmas[0]
    for here, there in pairwise(sigmas):
        slope = (x - denoiser(x, here, labels)) / here
        step = x + (there - here) * slope
        if there > 0:
            slope = (slope + (step - denoiser(step, there, labels)) / there) / 2
            step = x + (there - here) * slope
        x = step
    return x


memory = unalike.Memory()
labels = torch.tensor([3, 3, 8, 8])
sigmas = karras_sigmas(12, sigma_min=0.02, sigma_max=80).float()
for seed in (1, 2):
    guided = guide_denoiser(
        denoise,
        unalike.SPARKE(strength=0.05),
        sigmas=sigmas,
        space="digits",
        memory=memory,
        embeddings=torch.nn.functional.one_hot(labels, 10).float(),
    )
    noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    samples = guided.sample(heun, noise, sigmas, labels)
    print(
        len(memory),
        "samples remembered,",
        guided.report.steps,
        "calls,",
        [round(i.nearest.distance, 1) for i in guided.report.images],
    )
