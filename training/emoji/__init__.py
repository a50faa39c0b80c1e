"""How the emoji model was made and measured."""
