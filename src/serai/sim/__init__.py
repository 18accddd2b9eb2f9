"""The world on a virtual clock, driving the schedule unchanged."""
