"""Training the embedded model, and measuring how far it is."""
