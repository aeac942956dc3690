"""The checks of `twofold verify`, one subject each."""
