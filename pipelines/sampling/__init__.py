"""A bounded sample of a corpus, read and tokenized as the job does; knows no fleet and no graph."""
