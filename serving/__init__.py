"""The query endpoint on Ray Serve: text in, vectors of the corpus' space out."""
