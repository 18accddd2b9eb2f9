"""What tasks read, as the schedule knows it: who holds it, what it costs to bring, which task is nearest to it."""
