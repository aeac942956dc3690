"""What the driver does around the actors: pool, rounds, progress, report, index, retirement."""
