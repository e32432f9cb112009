"""Networks: CIFAR ResNets with one or two linear heads, and SimSiam around them."""
