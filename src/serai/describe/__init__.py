"""Frozen descriptions and their readers."""
