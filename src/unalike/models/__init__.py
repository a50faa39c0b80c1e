"""The models that come with the package: their data, weights and training."""
