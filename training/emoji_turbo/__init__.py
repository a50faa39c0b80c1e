"""How `emoji-turbo` was made."""
