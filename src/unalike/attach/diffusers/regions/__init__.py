"""Boxes, masks and words resolved to cells of the latent grid."""
