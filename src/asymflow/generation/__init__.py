"""From what somebody wants to pictures with a record of how they were made."""
