"""The files that tasks read: what their origins are, who has them, and how the front end gives them."""
