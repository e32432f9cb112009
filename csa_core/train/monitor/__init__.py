"""What a run shows while it trains. Nothing of it is read by a training."""
