"""Every family of pipelines that is tested end to end."""

from tests.hosts import images

FAMILIES = (*images.FAMILIES,)
