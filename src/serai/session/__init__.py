"""Urls, contexts and sessions."""
