"""How the digits model was made and measured."""
