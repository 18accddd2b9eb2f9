"""Servers and services that the tests of adverts share."""

from __future__ import annotations

from serai.testing.postgres import postgres

__all__ = ["postgres"]
