"""The output folder: its pin, shards, index, and what must hold over all of them."""
