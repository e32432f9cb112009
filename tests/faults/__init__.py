"""Killed, starved, fed garbage: each line of the README's "What you can rely on", with its count."""
