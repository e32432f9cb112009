"""What may be said of a claim."""

SUPPORTED, OPEN, CONTRADICTED, NOT_RUN = "supported", "cannot be told", "contradicted", "not run"
