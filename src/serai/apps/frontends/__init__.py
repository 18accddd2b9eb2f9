"""Serai behind interfaces that users know."""
