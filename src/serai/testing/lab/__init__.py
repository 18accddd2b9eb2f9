"""The laboratory: real Linux hosts on one machine."""
