"""A hospital's own patients: plan what to read, adapt a model, audit the data, monitor the worklists."""
