"""From lines to tables and plots: what they say together, how it is shown, where it stands."""
