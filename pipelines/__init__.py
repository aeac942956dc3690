"""Ray Data batch jobs over object storage: embed, verify and search a corpus."""
