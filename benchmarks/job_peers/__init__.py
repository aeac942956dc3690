"""The job against what a user would write instead: systems, places, one run."""
