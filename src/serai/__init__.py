"""Serai: one queue over everything you have credentials for."""

from __future__ import annotations

__version__ = "0.1.0"
