"""From a generation spec to pictures with a record of how they were made."""
