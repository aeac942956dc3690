"""What an actor does with one work unit: read, tokenize, forward, write."""
