"""Images in, planned batches out: sources, long-tailed splits, the plan of an epoch, augmentation."""
