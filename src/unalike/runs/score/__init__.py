"""`unalike score`: scores of a folder of images, with intervals and a report page."""
