"""What a run keeps on disk: checkpoints, the lock on them, results, and the run it started from."""
