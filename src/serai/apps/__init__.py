"""What users run: bags of tasks, and the front ends of other libraries."""
