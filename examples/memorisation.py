"""How far latent updates are from those of ordinary prompts, without a protected set."""

import unalike
from unalike.attach import memorisation, stability_region

ordinary = ["cat", "clock", "flower", "hat", "heart", "shoe", "star", "tool"]

guided = unalike.guide(unalike.load("emoji-turbo"))
guided(ordinary)  # in earnest some dozens of prompts, at the settings of the later calls
region = stability_region([guided.report])

guided(["alarm clock", "clock"])
for image, found in zip(guided.report.images, memorisation(guided.report, region), strict=True):
    print(f"{image.prompt}: score {found.score:.1f}, first update {found.first_share:.0%}")
