"""Context-shift augmentation itself: pure functions on tensors, and the bank, its one state."""
