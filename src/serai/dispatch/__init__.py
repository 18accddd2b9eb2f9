"""Task states, the schedule, sites, the journal and the engines."""
