"""What a graph means, and that a plan changes nothing of it."""
