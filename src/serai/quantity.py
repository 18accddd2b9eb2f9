"""Quantities as people write them: ``10m``, ``1.5h``, ``4GB``, ``512 MiB``."""
