"""The shipped class-to-image model of handwritten digits: its data, and how it was trained."""
