"""The encoder against what a user would take instead: models, texts, systems, turns."""
