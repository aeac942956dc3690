"""What clients speak, each mapped to `EmbeddingService.embed` and back; one module a dialect."""
