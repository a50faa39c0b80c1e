"""`unalike score`: a folder of images in, scores with intervals and a page with pictures out."""
