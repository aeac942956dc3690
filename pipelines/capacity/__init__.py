"""What a corpus would take on a fleet: sampled, probed and computed; embeds nothing."""
