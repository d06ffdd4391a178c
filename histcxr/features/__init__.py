"""From pixels and a lung mask to counts, and from counts to features; never sees a label."""
