"""Where pipelines come from: the model catalogue."""
