"""The models that come with the package: weights, data and judges."""
