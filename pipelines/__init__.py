"""Ray Data batch jobs over object storage: embed, verify, search and evaluate."""
