"""Documents made of the journal and of measured facts. Pure: knows the model alone."""
