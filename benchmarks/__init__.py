"""Measured speed; see README.md here."""
