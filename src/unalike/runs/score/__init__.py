"""`unalike score`: a folder of images in, figures with intervals and a page with pictures out."""
