"""Every family of pipelines that makes images."""

from tests.hosts import images_language, images_transformer, images_unet

FAMILIES = (*images_unet.FAMILIES, *images_transformer.FAMILIES, *images_language.FAMILIES)
