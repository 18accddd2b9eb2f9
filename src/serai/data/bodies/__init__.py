"""Long bodies, and many files in one, as the appliance takes and sends them."""
