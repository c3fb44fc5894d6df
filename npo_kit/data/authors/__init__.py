"""The corpus of fictional authors, made by rule."""
