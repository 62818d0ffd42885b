"""Words of other languages for the concepts that the embedded model knows."""
