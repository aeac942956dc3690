"""A model as files: where it is, what its folder says, which space it spans, how to mirror it."""
