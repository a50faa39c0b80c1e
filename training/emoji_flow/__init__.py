"""How `emoji-flow` was made."""
