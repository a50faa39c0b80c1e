"""Every family of pipelines that is tested end to end."""

from tests.hosts import images, videos

FAMILIES = (*images.FAMILIES, *videos.FAMILIES)
